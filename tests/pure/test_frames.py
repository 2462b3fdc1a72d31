"""What goes through the valve survives any splitting; garbage raises BadFrame and nothing else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pure.frames import (
    CAPTURE,
    HEAD_BYTES,
    HELLO,
    STATS,
    BadFrame,
    FrameReader,
    Receipt,
    ReceiptReader,
    capture_frame,
    capture_from,
    frame,
)
from proxy.words.exchange import ENDS, BoundedCopy, Capture

LIMIT = 1 << 20
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
copies = st.builds(BoundedCopy, st.binary(max_size=50), st.binary(max_size=50), st.integers(0, 1 << 40))
captures = st.builds(
    Capture,
    id=text,
    route=text,
    format=text,
    path=text,
    status=st.integers(0, 999),
    end=st.sampled_from(ENDS),
    request_content_encoding=text,
    response_content_type=text,
    response_content_encoding=text,
    finished_at=st.floats(0, 1e10),
    duration_s=st.floats(0, 1e6),
    first_byte_s=st.none() | st.floats(0, 1e6),
    request=copies,
    response=copies,
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.lists(captures, max_size=5), st.lists(st.integers(0, 10_000), max_size=10))
def test_captures_survive_any_splitting(sent: list[Capture], cuts: list[int]) -> None:
    wire = frame(HELLO, {"worker": "w"}) + b"".join(map(capture_frame, sent)) + frame(STATS, {"a": [1]})
    reader = FrameReader(LIMIT)
    got: list[Capture] = []
    kinds = []
    for piece in split(wire, cuts):
        for kind, head, bodies in reader.feed(piece):
            kinds.append(kind)
            if kind == CAPTURE:
                got.append(capture_from(head, bodies))
    assert [asdict(one) for one in got] == [asdict(one) for one in sent]
    assert kinds == [HELLO, *[CAPTURE] * len(sent), STATS]


@given(st.binary(max_size=300), st.lists(st.integers(0, 1000), max_size=5))
def test_garbage_raises_bad_frame_and_nothing_else(data: bytes, cuts: list[int]) -> None:
    reader = FrameReader(200)
    try:
        for piece in split(data, cuts):
            for _, head, bodies in reader.feed(piece):
                capture_from(head, bodies)
    except BadFrame:
        pass


@given(captures, st.data())
def test_a_damaged_frame_raises_bad_frame_or_is_read(sent: Capture, data: st.DataObject) -> None:
    wire = bytearray(capture_frame(sent))
    for _ in range(data.draw(st.integers(1, 5))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        for _, head, bodies in FrameReader(LIMIT).feed(bytes(wire)):
            capture_from(head, bodies)
    except BadFrame:
        pass


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 50) | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from(["id", "sizes", "totals", "status", "x"]), values), st.binary(max_size=9)
)
def test_any_head_is_a_capture_or_a_bad_frame(head: dict[str, object], bodies: bytes) -> None:
    with suppress(BadFrame):
        capture_from(dict(head), memoryview(bodies))


@pytest.mark.parametrize("letter", ['"', "\t", "\x01", "é", "�", "a"])
def test_a_frame_is_little_larger_than_its_bodies_whatever_the_head_of_a_request_held(letter: str) -> None:
    """Or a long path would make a frame over the limit, and cost the connection and all that was on it."""
    long = letter * 65_536
    packed = capture_frame(
        Capture(
            "c" * 24, "r" * 40, "openai_completions", long + "/v1/chat/completions", 200, "baseline",
            "upstream_silent", long, long, long, 1e10, 1e6, 1e6,
        )
    )  # fmt: skip
    assert len(packed) <= HEAD_BYTES
    (path,) = (capture_from(head, bodies).path for _, head, bodies in FrameReader(HEAD_BYTES).feed(packed))
    assert path.endswith(letter + "/v1/chat/completions")


def test_negative_sizes_are_refused() -> None:
    head = {"id": "", "route": "", "format": "", "path": "", "status": 1, "totals": [0, 0]}
    with pytest.raises(BadFrame):
        capture_from({**head, "sizes": [5, -5, 3, 0]}, memoryview(b"abc"))


def test_a_frame_over_the_limit_is_refused_before_it_is_collected() -> None:
    with pytest.raises(BadFrame):
        list(FrameReader(100).feed(frame(STATS, {}, b"x" * 200)[:12]))


receipts = st.builds(Receipt, *[st.integers(0, (1 << 64) - 1)] * 3)


@given(st.lists(receipts, min_size=1, max_size=8), st.lists(st.integers(0, 200), max_size=5))
def test_the_newest_receipt_is_read_whatever_the_splitting(sent: list[Receipt], cuts: list[int]) -> None:
    reader = ReceiptReader()
    read = [reader.feed(piece) for piece in split(b"".join(one.packed() for one in sent), cuts)]
    assert [one for one in read if one is not None][-1] == sent[-1]
