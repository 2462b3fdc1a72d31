"""The header policy: what travels on, what belongs to one connection, and how a body is delimited."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.pure.headers import (
    HOP_BY_HOP,
    BadFraming,
    RawHeaders,
    forwarded,
    framing_of,
    named_by_connection,
    request_head,
    response_head,
    value_of,
    websocket_asked,
)

names = st.sampled_from(
    [b"X-A", b"x-a", b"X-B", b"Accept", b"Set-Cookie", b"Date", b"Server", b"Content-Type"]
)
odd = st.binary(max_size=12).map(lambda raw: bytes(b for b in raw if b >= 0x20 and b != 0x7F).strip())
end_to_end = st.lists(st.tuples(names, odd), max_size=12)
hops = st.lists(st.tuples(st.sampled_from(sorted(HOP_BY_HOP - {b"connection"})), odd), max_size=4)


def lines(head: bytes) -> list[bytes]:
    return head.split(b"\r\n")[1:-2]


def written(headers: RawHeaders) -> list[bytes]:
    return [name + b": " + value for name, value in headers]


@given(end_to_end, hops, st.randoms())
def test_end_to_end_headers_leave_exactly_as_they_came(
    headers: list[tuple[bytes, bytes]], dropped: list[tuple[bytes, bytes]], random: object
) -> None:
    mixed = list(headers)
    for position, pair in enumerate(dropped):
        mixed.insert((position * 7) % (len(mixed) + 1), pair)
    kept = [pair for pair in mixed if pair[0] not in HOP_BY_HOP]
    assert lines(response_head(200, b"OK", mixed)) == written(kept)
    head = request_head(b"GET", b"/", mixed, host=b"up", chunked=False)
    assert lines(head) == [*written(kept), b"Host: up"]


def test_host_is_replaced_in_its_place_once() -> None:
    headers = [(b"A", b"1"), (b"HOST", b"a"), (b"B", b"2"), (b"host", b"b")]
    head = request_head(b"GET", b"/", headers, host=b"up:1", chunked=False)
    assert head == b"GET / HTTP/1.1\r\nA: 1\r\nHOST: up:1\r\nB: 2\r\n\r\n"


def test_connection_names_headers_away_but_none_that_others_rely_on() -> None:
    headers = [
        (b"Connection", b"close, X-One"),
        (b"connection", b" x-TWO ,Host, Content-Length, authorization,cookie,,"),
        (b"X-One", b"1"),
        (b"X-Two", b"2"),
        (b"Authorization", b"k"),
        (b"Cookie", b"c"),
        (b"Content-Length", b"0"),
    ]
    assert {b"x-one", b"x-two"} <= named_by_connection(headers)
    head = request_head(b"POST", b"/", headers, host=b"up", chunked=False)
    assert lines(head) == [b"Authorization: k", b"Cookie: c", b"Content-Length: 0", b"Host: up"]


def test_framing_is_stated_anew_where_it_was() -> None:
    headers = [(b"A", b"1"), (b"Transfer-Encoding", b"Chunked"), (b"B", b"2")]
    assert lines(response_head(200, b"", headers, chunked=True)) == [
        b"A: 1",
        b"Transfer-Encoding: chunked",
        b"B: 2",
    ]
    assert lines(response_head(200, b"", headers)) == [b"A: 1", b"B: 2"]
    assert lines(response_head(200, b"", [(b"A", b"1")], chunked=True, connection=b"close")) == [
        b"A: 1",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
    ]
    assert lines(request_head(b"POST", b"/", headers, host=b"h", chunked=True)) == [
        b"A: 1",
        b"Transfer-Encoding: chunked",
        b"B: 2",
        b"Host: h",
    ]


@pytest.mark.parametrize(
    ("headers", "length", "chunked"),
    [
        ([], None, False),
        ([(b"content-length", b"0")], 0, False),
        ([(b"Content-Length", b" 12 ")], 12, False),
        ([(b"Content-Length", b"12"), (b"content-length", b"12")], 12, False),
        ([(b"Transfer-Encoding", b"Chunked")], None, True),
    ],
)
def test_framing_is_read(headers: RawHeaders, length: int | None, chunked: bool) -> None:
    framing = framing_of(headers)
    assert (framing.length, framing.chunked) == (length, chunked)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Content-Length", b"1"), (b"Content-Length", b"2")],
        [(b"Content-Length", b"1, 1")],
        [(b"Content-Length", b"+1")],
        [(b"Content-Length", b"-1")],
        [(b"Content-Length", b"")],
        [(b"Content-Length", b"0x1")],
        [(b"Content-Length", b"9" * 5000)],
        [(b"Content-Length", "\u0661".encode())],
        [(b"Transfer-Encoding", b"gzip, chunked")],
        [(b"Transfer-Encoding", b"identity")],
        [(b"Transfer-Encoding", b"chunked"), (b"Transfer-Encoding", b"chunked")],
        [(b"Content-Length", b"1"), (b"Transfer-Encoding", b"chunked")],
    ],
)
def test_framing_that_two_readers_could_read_differently_is_refused(headers: RawHeaders) -> None:
    with pytest.raises(BadFraming):
        framing_of(headers)


@given(st.lists(st.tuples(st.sampled_from([b"Content-Length", b"Transfer-Encoding"]), st.binary(max_size=8))))
def test_framing_of_anything_is_framing_or_bad_framing(headers: list[tuple[bytes, bytes]]) -> None:
    with suppress(BadFraming):
        framing_of(headers)


def test_each_hop_adds_itself_to_the_forwarding_headers() -> None:
    kept, added = forwarded([(b"Host", b"a:1"), (b"X", b"1")], client=b"10.0.0.9", scheme=b"http")
    assert kept == [(b"Host", b"a:1"), (b"X", b"1")]
    assert added == [
        (b"X-Forwarded-For", b"10.0.0.9"),
        (b"X-Forwarded-Proto", b"http"),
        (b"X-Forwarded-Host", b"a:1"),
    ]
    kept, added = forwarded([*added, (b"x-forwarded-for", b"b")], client=b"c", scheme=b"https")
    assert kept == []
    assert [value for _, value in added] == [b"10.0.0.9, b, c", b"http", b"a:1"]


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ([(b"UPGRADE", b" WebSocket ")], True),
        ([], False),
        ([(b"Upgrade", b"h2c")], False),
        ([(b"Upgrade", b"websocket, h2c")], False),
        ([(b"Upgrade", b"websocket"), (b"Upgrade", b"websocket")], False),
    ],
)
def test_only_one_plain_wish_for_a_websocket_is_one(headers: RawHeaders, asked: bool) -> None:
    assert websocket_asked(headers) is asked


def test_a_websocket_keeps_its_upgrade_and_nothing_else_does() -> None:
    headers = [(b"Connection", b"Upgrade, X"), (b"X", b"1"), (b"Upgrade", b"websocket"), (b"Host", b"a")]
    kept = request_head(b"GET", b"/", headers, host=b"up", chunked=False, websocket=True)
    assert lines(kept) == [b"Connection: Upgrade", b"Upgrade: websocket", b"Host: up"]
    assert lines(request_head(b"GET", b"/", headers, host=b"up", chunked=False)) == [b"Host: up"]
    accepted = [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-X", b"1")]
    assert lines(response_head(101, b"S", accepted, keep_upgrade=True)) == written(accepted)


def test_the_last_value_of_a_header_counts() -> None:
    assert value_of([(b"A", b"1"), (b"a", b"\xe9")], b"a") == "é"
    assert value_of([], b"a") == ""
