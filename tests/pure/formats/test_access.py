"""Reading JSON that may hold anything anywhere raises nothing but Unreadable."""

from __future__ import annotations

import pytest

from proxy.pure.formats.access import as_int, dicts, load, need_list, text_of, total
from proxy.words.errors import Unreadable


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1}', {"a": 1}),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b'"\\ud83d\\ude42"', "🙂"),
        (b'"\\ud83d"', "\ufffd"),
        (b'"\\ude42 \\uD83D\\ud83d\\ude42"', "\ufffd \ufffd🙂"),
        (b'"\\\\ud83d \\ud83d \\n"', "\\ud83d \ufffd \n"),
        (b'"\xff\xc3"', "\ufffd\ufffd"),
    ],
)
def test_json_is_read_as_a_browser_reads_it(body: bytes, value: object) -> None:
    assert load(body) == value


@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b"NaN", b"'a'", b"[" * 2000 + b"]" * 2000, b'{"a":1}{"b":2}']
)
def test_what_is_not_json_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        load(body)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (0, 0),
        (7, 7),
        (12.0, 12),
        (12.5, None),
        (-1, None),
        (True, None),
        ("7", None),
        (None, None),
        (2**60, None),
    ],
)
def test_a_count_is_a_whole_number_within_reason(value: object, count: int | None) -> None:
    assert as_int(value) == count
    assert as_int(float("inf")) is None


def test_sums_leave_out_what_is_no_count() -> None:
    assert total(1, None, "x", 2) == 3
    assert total(None, "x") is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        (None, ""),
        (5, ""),
        (["a", {"type": "text", "text": "b"}, {"text": "c"}], "a\nb\nc"),
        ({"type": "input_text", "text": "a"}, "a"),
        ([{"type": "refusal", "refusal": "no"}], "no"),
        (
            [
                {"type": "image_url", "text": "x"},
                {"type": "thinking", "text": "x"},
                {"type": ["text"], "text": "x"},
            ],
            "x",
        ),
        ([[["a"]]], ""),
        ([{"type": "text", "text": ["a"]}], ""),
    ],
)
def test_the_text_of_a_content_is_that_of_its_text_parts(content: object, text: str) -> None:
    assert text_of(content) == text


def test_lists_are_read_leniently_and_demanded_strictly() -> None:
    assert list(dicts([{"a": 1}, 5, None, {"b": 2}])) == [{"a": 1}, {"b": 2}]
    assert list(dicts({"a": 1})) == [{"a": 1}]
    assert list(dicts("x")) == []
    assert need_list({"messages": []}, "messages") == []
    with pytest.raises(Unreadable):
        need_list({"messages": {}}, "messages")
