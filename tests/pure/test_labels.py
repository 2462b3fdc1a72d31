"""Free names become label values only inside their bounds."""

from __future__ import annotations

import hashlib
import string
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pure.labels import ModelNames, SystemPrompts, digest_of


def test_ten_thousand_random_model_names_make_twenty_labels() -> None:
    rng = Random(1)
    names = ModelNames(limit=20)
    letters = string.ascii_letters + string.digits + "._:/@-"
    seen = {names.label("m" + "".join(rng.choices(letters, k=12)), admit=True) for _ in range(10_000)}
    assert len(seen) == 21
    assert "other" in seen


@given(st.lists(st.text(max_size=120), max_size=60))
def test_no_label_is_anything_but_a_well_formed_name(texts: list[str]) -> None:
    names = ModelNames(limit=5)
    labels = {names.label(text, admit=True) for text in texts}
    assert len(labels - {"other", "unknown"}) <= 5
    assert all(label.isascii() and label.isprintable() and " " not in label for label in labels)


def test_the_first_models_keep_their_names_for_good() -> None:
    names = ModelNames(limit=2)
    assert [names.label(name, admit=True) for name in ("a", "b", "c", "a")] == ["a", "b", "other", "a"]
    names.configure([], 1)
    assert [names.label(name, admit=True) for name in ("a", "b", "c")] == ["a", "b", "other"]


def test_a_failed_exchange_takes_up_no_place() -> None:
    names = ModelNames(limit=1)
    assert names.label("made-up", admit=False) == "other"
    assert names.label("real", admit=True) == "real"
    assert names.label("real", admit=False) == "real"


def test_an_allow_list_is_the_whole_list() -> None:
    names = ModelNames(["gpt-4o"], limit=20)
    assert names.label("gpt-4o", admit=False) == "gpt-4o"
    assert names.label("gpt-5", admit=True) == "other"


@pytest.mark.parametrize(
    "name", ["two words", "ünïcode", "-leading", "a" * 101, 'quote"', "line\nbreak", "a\n"]
)
def test_a_name_out_of_pattern_is_other(name: str) -> None:
    assert ModelNames().label(name, admit=True) == "other"


def test_a_missing_name_is_unknown() -> None:
    assert ModelNames().label("", admit=True) == "unknown"


def test_a_system_prompt_is_shown_by_its_configured_name_or_its_hash() -> None:
    digest = hashlib.sha256(b"You are a bank's assistant.").hexdigest()[:12]
    prompts = SystemPrompts({"bank-v3": digest}, limit=1)
    assert prompts.label("You are a bank's assistant.", admit=True) == "bank-v3"
    assert prompts.label("first", admit=True) == digest_of("first")
    assert prompts.label("second", admit=True) == "other"
    assert prompts.label("", admit=True) == "none"


def test_a_prompt_that_no_encoder_takes_still_has_a_hash() -> None:
    assert len(digest_of("\ud800")) == 12


def test_new_names_of_system_prompts_apply_to_seen_ones() -> None:
    prompts = SystemPrompts(limit=5)
    digest = prompts.label("text", admit=True)
    prompts.configure({"named": digest}, 5)
    assert prompts.label("text", admit=True) == "named"
