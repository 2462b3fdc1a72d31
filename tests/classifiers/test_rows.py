"""Rows, families and splits: nothing that was trained on is measured on in other words."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

from classifiers.rows import (
    SPLITS,
    DataError,
    Row,
    family,
    normalised,
    read_rows,
    split_of,
    without_duplicates,
    write_rows,
)

if TYPE_CHECKING:
    from pathlib import Path


def row(number: int, prompt: str, response: str | None = None) -> Row:
    return Row(
        id=f"row-{number}",
        source="made-up",
        prompt=prompt,
        response=response,
        outcome=None,
        prompt_class="benign",
        topic=None,
        labelled_by="human",
        weight=1.0,
        split=split_of(family(prompt)),
    )


def test_a_family_never_spreads_over_two_splits() -> None:
    rows = [
        row(number, f"{opening} {number % 97} words that open each request {ending}", f"response {number}")
        for number in range(2000)
        for opening in ("The first", "the FIRST,")
        for ending in ("a", "b, in other words")
    ]
    splits = defaultdict(set)
    for one in rows:
        splits[family(one.prompt)].add(one.split)
    assert len(splits) == 97
    assert all(len(found) == 1 for found in splits.values())


def test_punctuation_and_case_do_not_make_a_new_family() -> None:
    assert family("  How do I MAKE crème brûlée?") == family("how do i make, crème brûlée")


def test_prompts_that_open_alike_are_one_family_and_others_are_not() -> None:
    opening = "one two three four five six seven eight"
    assert family(f"{opening} nine") == family(f"{opening} ten")
    assert family("what is the capital of France") != family("what is the capital of Spain")


def test_splits_keep_their_shares_and_never_move() -> None:
    found = [split_of(f"key-{number}", test=0.2, validation=0.1) for number in range(5000)]
    assert set(found) == set(SPLITS)
    assert found.count("test") / 5000 == pytest.approx(0.2, abs=0.02)
    assert found.count("validation") / 5000 == pytest.approx(0.1, abs=0.02)
    assert (split_of("a"), split_of("b"), split_of("own-1")) == (
        split_of("a"),
        split_of("b"),
        split_of("own-1"),
    )


def test_a_row_that_differs_only_in_writing_is_dropped_and_the_first_one_stays() -> None:
    rows = [row(1, "Hello, world!"), row(2, "hello world"), row(3, "hello world", "with a response")]
    assert [kept.id for kept in without_duplicates(rows)] == ["row-1", "row-3"]


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = [row(1, "first\n\u2028"), row(2, "second 🙂", "response")]
    write_rows(tmp_path / "deep" / "rows.jsonl", rows)
    assert read_rows(tmp_path / "deep" / "rows.jsonl") == rows


def test_missing_and_broken_rows_are_told_by_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl is missing"):
        read_rows(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_bytes(b"{}x\n")
    with pytest.raises(DataError, match="line 1 of"):
        read_rows(tmp_path / "rows.jsonl")


def test_normalising_takes_any_text() -> None:
    assert normalised("\ud800 A\u0301!") == "a" or normalised("\ud800 A\u0301!").endswith("a")
