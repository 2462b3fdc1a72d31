"""The lean upstream client: one asyncio protocol a connection, llhttp through httptools; pools: pool.py.

Nothing here waits for a chunk: what a read brings is handed to the `Receiver` at once, in one call, already
free of transfer framing. A connection serves one exchange at a time and goes back to the pool only when the
message ended exactly where its framing says and the upstream keeps alive. There are no retries: a request
that may have reached the upstream is never sent twice, so an idle connection is looked at once more before
it is used. llhttp runs without any of its leniencies.
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Literal, Protocol, cast

import httptools

from proxy.pure.headers import BadFraming, Framing, framing_of

Failure = Literal[
    "connect_refused",
    "connect_timeout",
    "dns",
    "tls",
    "connect_failed",
    "closed_early",
    "malformed",
    "silent",
]


class UpstreamError(Exception):
    """The upstream could not be reached, or did not speak HTTP. `cause` is counted."""

    def __init__(self, cause: Failure, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else cause)
        self.cause: Failure = cause


class Head:
    """Status line and headers of one response, as received."""

    __slots__ = ("framing", "headers", "reason", "status")

    def __init__(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        self.reason = reason
        self.headers = headers
        self.framing = Framing()


class Receiver(Protocol):
    """Who gets a response. All calls come from the event loop, in order, and must not block."""

    def interim(self, head: Head) -> None: ...
    def received(self, head: Head | None, parts: list[bytes], ended: bool) -> None:
        """What one read brought: the head in the first call, body pieces in the upstream's own chunks."""

    def failed(self, error: UpstreamError) -> None: ...
    def faulted(self, error: Exception) -> None:
        """One of the calls above raised: a fault of our own."""

    def tunnelled(self, data: bytes) -> None: ...
    def upload_resumed(self) -> None: ...


class Home(Protocol):
    """Where a connection rests between two exchanges."""

    head_bytes: int

    def put(self, connection: Connection) -> None: ...
    def forget(self, connection: Connection) -> None: ...


class Connection(asyncio.Protocol):
    """One connection to one upstream."""

    __slots__ = (
        "_bodiless",
        "_fields",
        "_head",
        "_interims",
        "_loop",
        "_parser",
        "_parts",
        "_pool",
        "_readable",
        "_reason",
        "_surplus",
        "_tunnel",
        "_upgrade",
        "_without_body",
        "ended",
        "idle_since",
        "last_byte_at",
        "paused_writing",
        "receiver",
        "reusable",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Home) -> None:
        self._loop = loop
        self._pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set by connection_made
        self._parser: httptools.HttpResponseParser | None = None
        self._readable = select.poll()
        self.ended = False
        self.receiver: Receiver | None = None
        self.paused_writing = False
        self.last_byte_at = 0.0
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._readable.register(raw.fileno(), select.POLLIN)

    # --- one exchange

    def usable(self) -> bool:
        """Open, and with nothing to read: bytes or an end on an idle connection make it useless."""
        return not self.transport.is_closing() and not self._readable.poll(0)

    def begin(self, receiver: Receiver, *, bodiless: bool, upgrade: bool = False) -> None:
        """Take the next response for `receiver`. `bodiless`: the request was HEAD; `upgrade`: it asked."""
        self.receiver = receiver
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = bodiless
        self._upgrade = upgrade
        self._interims: list[Head] = []
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._tunnel = False
        self._surplus = False
        self._without_body = 0
        self.ended = False
        self.reusable = False
        self.last_byte_at = self._loop.time()

    def write(self, data: bytes) -> None:
        self.last_byte_at = self._loop.time()
        self.transport.write(data)

    def release(self) -> None:
        """The exchange is over: back to the pool, or closed."""
        self.receiver = None
        sound = self.ended and self.reusable and not self._surplus and not self.paused_writing
        if sound and not self.transport.is_closing():
            self._pool.put(self)
        else:
            self.transport.abort()

    # --- from the wire

    def data_received(self, data: bytes) -> None:
        self.last_byte_at = self._loop.time()
        receiver = self.receiver
        if receiver is None:  # nobody asked: whatever this is, it is no answer to the next request
            self.transport.abort()
            return
        try:
            if self._tunnel:
                receiver.tunnelled(data)
            else:
                self._parse(receiver, data)
        except Exception as error:  # noqa: BLE001 - reported by its place, and the exchange is ended for it
            receiver.faulted(error)

    def _parse(self, receiver: Receiver, data: bytes) -> None:
        assert self._parser is not None
        had_head = self._head is not None
        self._without_body += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._switch(receiver, data[upgrade.args[0] :])
            return
        except (httptools.HttpParserError, BadFraming) as error:
            if not self.ended:
                self._deliver(receiver, had_head)
                receiver.failed(UpstreamError("malformed", type(error).__name__))
                return
            self._surplus = True  # garbage after a whole message: the message stands, the connection ends
        if self._without_body > self._pool.head_bytes and self._too_much(had_head):
            self.reusable = False
            receiver.failed(UpstreamError("malformed", "oversized head"))
            return
        if self._parts or self.ended:
            self._without_body = 0
        self._deliver(receiver, had_head)

    def _too_much(self, had_head: bool) -> bool:
        """An endless head, endless interim responses, endless trailers, or a large head in a single read."""
        if not self._parts and not self.ended:
            return True
        return (
            not had_head
            and sum(len(name) + len(value) + 4 for name, value in self._fields) > self._pool.head_bytes
        )

    def _deliver(self, receiver: Receiver, had_head: bool) -> None:
        if self._interims:
            interims, self._interims = self._interims, []
            for interim in interims:
                receiver.interim(interim)
        head = self._head
        if head is not None and (self._parts or self.ended or not had_head):
            parts, self._parts = self._parts, []
            receiver.received(None if had_head else head, parts, self.ended)

    def _switch(self, receiver: Receiver, rest: bytes) -> None:
        """101: from here on the connection is the two ends' own."""
        self._tunnel = True
        self._deliver(receiver, False)
        if rest and self.receiver is not None:  # by now the tunnel, no longer the relay
            self.receiver.tunnelled(rest)

    def eof_received(self) -> bool:
        return False  # closes the transport; connection_lost decides what it means

    def connection_lost(self, exc: Exception | None) -> None:
        receiver, self._parser = self.receiver, None  # the parser knows this object: no cycle is left
        if receiver is None:
            self._pool.forget(self)
            return
        if self.ended and not self._tunnel:
            return
        head = self._head
        until_close = (
            exc is None
            and head is not None
            and not self._tunnel
            and head.framing.length is None
            and not head.framing.chunked
        )
        try:
            if until_close:
                self.ended = True
                receiver.received(None, [], True)
            else:
                receiver.failed(UpstreamError("closed_early", type(exc).__name__ if exc else ""))
        except Exception as error:  # noqa: BLE001 - as in data_received
            receiver.faulted(error)

    def pause_writing(self) -> None:
        self.paused_writing = True

    def resume_writing(self) -> None:
        self.paused_writing = False
        if self.receiver is not None:
            self.receiver.upload_resumed()

    # --- llhttp's callbacks

    def on_message_begin(self) -> None:
        if self.ended:
            self._surplus = True

    def on_status(self, status: bytes) -> None:
        if not self.ended:
            self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:  # later ones are trailers, which end at a proxy
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        if self.ended:
            return
        assert self._parser is not None
        status = self._parser.get_status_code()
        head = Head(status, self._reason, self._fields)
        if status == 101:
            if not (self._upgrade and self._parser.should_upgrade()):
                raise BadFraming("a change of protocols that nobody asked for")
        elif status < 200:
            if status < 100:
                raise BadFraming("a status that is none")
            self._reason, self._fields = b"", []
            self._interims.append(head)
            return
        head.framing = framing_of(self._fields)
        self._head = head
        self.reusable = self._parser.should_keep_alive()
        if self._bodiless:
            self.ended = True

    def on_body(self, body: bytes) -> None:
        if self.ended:
            self._surplus = True
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._head is not None:
            self.ended = True
