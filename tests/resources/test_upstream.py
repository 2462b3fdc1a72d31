"""One upstream connection without sockets: what the wire brings, whatever way it is cut, and what is kept."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.resources.pool import Pool
from proxy.resources.upstream import Connection, Head, UpstreamError
from proxy.words.plan import RoutePlan

ROUTE = RoutePlan("r", "http", "127.0.0.1", 1, "", "", "", False, "")


@dataclass
class Ear:
    """A Receiver that writes down what it hears, as what a client would be able to tell."""

    interims: list[int] = field(default_factory=list)
    head: Head | None = None
    body: bytes = b""
    ended: bool = False
    error: str = ""
    tunnel: bytes = b""

    def interim(self, head: Head) -> None:
        assert self.head is None
        self.interims.append(head.status)

    def received(self, head: Head | None, parts: list[bytes], ended: bool) -> None:
        assert not self.ended
        if head is not None:
            assert self.head is None
            self.head = head
        assert self.head is not None
        self.body += b"".join(parts)
        self.ended = ended

    def failed(self, error: UpstreamError) -> None:
        assert not self.ended
        self.error = error.cause

    def faulted(self, error: Exception) -> None:
        raise error

    def tunnelled(self, data: bytes) -> None:
        self.tunnel += data

    def upload_resumed(self) -> None:
        return None

    def told(self) -> tuple[object, ...]:
        head = (self.head.status, self.head.reason, self.head.headers) if self.head else None
        return self.interims, head, self.body, self.ended, self.error


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self._pair = socket.socketpair()

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._pair[0] if name == "socket" else default

    def abort(self) -> None:
        self.closed = True
        for one in self._pair:
            one.close()

    def is_closing(self) -> bool:
        return self.closed


class Home:
    head_bytes = 1000

    def __init__(self) -> None:
        self.kept: list[Connection] = []

    def put(self, connection: Connection) -> None:
        self.kept.append(connection)

    def forget(self, connection: Connection) -> None:
        self.kept.remove(connection)


def hear(pieces: list[bytes], *, head: bool = False, close: bool = True) -> tuple[Ear, bool]:
    """(what was heard, kept for the next exchange?) after these reads, and the end of the connection."""
    loop = asyncio.new_event_loop()
    wire, home, ear = Wire(), Home(), Ear()
    try:
        connection = Connection(loop, home)
        connection.connection_made(wire)
        connection.begin(ear, bodiless=head)
        released = False
        for piece in pieces:
            if wire.closed or connection.receiver is None:
                break
            connection.data_received(piece)
            if (ear.ended or ear.error) and not released:
                released = True
                connection.release()
        if not released and close:
            connection.connection_lost(None)
        return ear, bool(home.kept)
    finally:
        wire.abort()
        loop.close()


WIRES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    (
        b"HTTP/1.1 200 OK\r\nA:\r\nA: \r\nB: x y \r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n1;e=1\r\nd\r\n0\r\nT: 1\r\n\r\n"
    ),
    (
        b"HTTP/1.1 103 Hint\r\nL: 1\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"
    ),
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    b"HTTP/1.1 200",
    b"garbage in, 502 out\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
]


@settings(deadline=None)
@given(st.sampled_from(WIRES), st.lists(st.integers(0, 300), max_size=12))
def test_any_cutting_of_the_wire_tells_the_same(raw: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(edges) if a != b]
    whole, kept = hear([raw])
    parts, kept_parts = hear(pieces)
    assert parts.told() == whole.told()
    assert kept_parts == kept


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from(WIRES), st.integers(0, 60), st.booleans())
def test_garbage_anywhere_fails_or_passes_but_never_raises(
    junk: bytes, raw: bytes, position: int, head: bool
) -> None:
    ear, kept = hear([raw[:position], junk, raw[position:]], head=head)
    assert ear.ended or ear.error
    assert not (kept and ear.error)


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", True),
        (b"HTTP/1.1 304 X\r\nContent-Length: 2\r\n\r\n", True),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi", True),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi!", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", False),
    ],
)
def test_only_a_clean_connection_is_kept(raw: bytes, kept: bool) -> None:
    ear, was_kept = hear([raw])
    assert ear.ended
    assert not ear.error
    assert was_kept is kept


def test_a_head_request_s_answer_has_no_body_whatever_it_says() -> None:
    ear, kept = hear([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"], head=True)
    assert (ear.ended, ear.body, kept) == (True, b"", True)
    ear, kept = hear([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"], head=True)
    assert (ear.ended, ear.body, kept) == (True, b"", False)


def test_heads_interims_and_trailers_are_bounded_however_they_come() -> None:
    big = b"X: " + b"x" * 1100 + b"\r\n"
    for raw in (
        b"HTTP/1.1 200 OK\r\n" + big + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Hint\r\nA: 1234567890\r\n\r\n" * 60,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + big,
        b"HTTP/1.1 200 " + b"O" * 1100,
    ):
        for size in (len(raw), 100):
            ear, kept = hear([raw[i : i + size] for i in range(0, len(raw), size)], close=False)
            assert ear.error == "malformed"
            assert not kept


async def test_a_name_that_cannot_be_encoded_is_a_name_that_does_not_resolve() -> None:
    pool = Pool(RoutePlan("r", "http", "a" * 64 + ".example", 80, "", "", "", False, ""))
    with pytest.raises(UpstreamError) as caught:
        await pool.connect()
    assert caught.value.cause == "dns"


async def test_a_closed_pool_keeps_nothing() -> None:
    pool = Pool(ROUTE)
    connection = Connection(asyncio.get_running_loop(), pool)
    wire = Wire()
    connection.connection_made(wire)
    pool.put(connection)
    assert pool.get() is connection
    pool.put(connection)
    pool.close()
    assert wire.closed
    assert pool.get() is None


async def test_an_idle_connection_with_something_to_read_is_not_given_out() -> None:
    pool = Pool(ROUTE)
    connection = Connection(asyncio.get_running_loop(), pool)
    wire = Wire()
    connection.connection_made(wire)
    pool.put(connection)
    wire._pair[1].send(b"x")
    assert pool.get() is None
    assert wire.closed
