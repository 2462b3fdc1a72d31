"""A fault in a worker becomes one line that names its place and quotes nothing."""

from __future__ import annotations

import json

import pytest

from proxy.assembly.worker import _report


def test_a_fault_is_logged_by_its_place_only(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("a secret prompt")
    except ValueError as error:
        _report(error)
    _report(RuntimeError("no traceback"))
    first, second = (json.loads(line) for line in capfd.readouterr().err.splitlines())
    assert first["event"] == "data side fault"
    assert first["level"] == "error"
    assert first["place"].startswith("ValueError at test_worker_report.py:")
    assert second["place"] == "RuntimeError"
    assert "secret" not in json.dumps([first, second])
