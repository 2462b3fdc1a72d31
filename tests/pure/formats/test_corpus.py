"""Every case of the corpus means what its folder says, however its bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.pure.formats.access import as_dict, load
from proxy.pure.formats.registry import FORMATS, parse, read_stream, recognise
from proxy.pure.formats.wire import framing_of
from proxy.words.errors import Unscored
from proxy.words.exchange import BoundedCopy, Exchange
from tests.corpus import Case, cases, encode
from tests.pure.formats.profile import STEADY

SCORED = [case for case in cases() if case.expected]
STREAMS = [case for case in SCORED if case.expected[0].streamed]


def outcome(case: Case) -> list[Exchange] | str:
    try:
        return parse(case.capture())
    except Unscored as error:
        return error.cause


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_case_gives_the_exchanges_that_it_expects(case: Case) -> None:
    assert recognise(case.method, case.path) == case.format
    assert outcome(case) == (list(case.expected) or case.unscored)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_at_least_five_cases(name: str) -> None:
    assert len([case for case in cases() if case.format == name]) >= 5


@pytest.mark.parametrize(
    "encoding", ["gzip", "deflate", "br", "zstd", "gzip, br", "br,zstd,  GZIP", "identity"]
)
@pytest.mark.parametrize("case", SCORED[::7], ids=lambda case: case.name)
def test_a_content_encoding_changes_nothing(case: Case, encoding: str) -> None:
    capture = case.capture(response=encode(case.plain_body, encoding.lower()))
    capture.response_content_encoding = encoding
    assert parse(capture) == list(case.expected)


@pytest.mark.parametrize("case", SCORED[::7], ids=lambda case: case.name)
def test_a_compressed_request_is_read(case: Case) -> None:
    capture = case.capture()
    body = encode(case.request_body, "zstd")
    capture.request, capture.request_content_encoding = BoundedCopy(body, b"", len(body)), "zstd"
    assert parse(capture) == list(case.expected)


def replay(case: Case, pieces: list[bytes]) -> list[Exchange]:
    """The exchanges of a stream given in pieces, with what was asked taken from the request."""
    form = FORMATS[case.format]
    framing = framing_of(form.name, case.path, case.header("content-type"), case.plain_body)
    asked = form.asked(as_dict(load(case.request_body)), case.path)
    return read_stream(form, asked, framing, pieces)


@pytest.mark.parametrize("case", STREAMS, ids=lambda case: case.name)
def test_a_stream_in_single_bytes_gives_the_same_exchange(case: Case) -> None:
    pieces = [case.plain_body[at : at + 1] for at in range(len(case.plain_body))]
    assert replay(case, pieces) == list(case.expected)


@settings(STEADY, max_examples=400)
@given(case=st.sampled_from(STREAMS), data=st.data())
def test_any_chunking_of_a_stream_gives_the_same_exchange(case: Case, data: st.DataObject) -> None:
    body = case.plain_body
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=40)))
    pieces = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert replay(case, pieces) == list(case.expected)
