"""Fixtures of the classifier's tests: the shipped bundle, loaded once a test process."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from classifiers.runtime import DEFAULT_BUNDLE, Classifier

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def classifier() -> Classifier:
    """The shipped bundle, on one thread as in production."""
    return Classifier.load(DEFAULT_BUNDLE)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A copy of the shipped bundle for a test to damage."""
    return shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")
