"""The lean upstream client: one asyncio protocol a connection, llhttp through httptools, a pool a route.

Nothing here waits for a chunk: what a read brings is handed to the `Receiver` at once, in one call, already
free of transfer framing. A connection serves one exchange at a time and goes back to the pool only when the
message ended exactly where its framing says and the upstream keeps alive. There are no retries: a request
that may have reached the upstream is never sent twice. llhttp runs without any of its leniencies.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from typing import Literal, Protocol, cast

import httptools

from proxy.pure.headers import BadFraming, Framing, framing_of
from proxy.words.plan import RoutePlan

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
    def tunnelled(self, data: bytes) -> None: ...
    def upload_resumed(self) -> None: ...


class Connection(asyncio.Protocol):
    """One connection to one upstream."""

    __slots__ = (
        "_bodiless",
        "_fields",
        "_head",
        "_loop",
        "_parser",
        "_parts",
        "_pool",
        "_reason",
        "_surplus",
        "_tunnel",
        "_without_body",
        "ended",
        "idle_since",
        "last_byte_at",
        "paused_writing",
        "receiver",
        "reusable",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
        self._loop = loop
        self._pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set by connection_made
        self.receiver: Receiver | None = None
        self.paused_writing = False
        self.last_byte_at = 0.0
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    # --- one exchange

    def begin(self, receiver: Receiver, *, bodiless: bool) -> None:
        """Take the next response for `receiver`. `bodiless`: the request was HEAD."""
        self.receiver = receiver
        self._parser = httptools.HttpResponseParser(self)
        self._bodiless = bodiless
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
        if self.ended and self.reusable and not self._surplus and not self.transport.is_closing():
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
        if self._tunnel:
            receiver.tunnelled(data)
            return
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
        if self._parts or self.ended:
            self._without_body = 0
        elif self._without_body > self._pool.head_bytes:  # an endless head, or endless trailers
            receiver.failed(UpstreamError("malformed", "oversized head"))
            return
        self._deliver(receiver, had_head)

    def _deliver(self, receiver: Receiver, had_head: bool) -> None:
        head = self._head
        if head is not None and (self._parts or self.ended or not had_head):
            parts, self._parts = self._parts, []
            receiver.received(None if had_head else head, parts, self.ended)

    def _switch(self, receiver: Receiver, rest: bytes) -> None:
        """101: from here on the connection is the two ends' own."""
        self._tunnel = True
        head = self._head
        assert head is not None
        receiver.received(head, [], False)
        if rest:
            receiver.tunnelled(rest)

    def eof_received(self) -> bool:
        return False  # closes the transport; connection_lost decides what it means

    def connection_lost(self, exc: Exception | None) -> None:
        receiver = self.receiver
        if receiver is None:
            self._pool.forget(self)
            return
        if self.ended:
            return
        head = self._head
        until_close = (
            exc is None
            and head is not None
            and not self._tunnel
            and head.framing.length is None
            and not head.framing.chunked
        )
        if until_close:
            self.ended = True
            receiver.received(None, [], True)
        else:
            receiver.failed(UpstreamError("closed_early", type(exc).__name__ if exc else ""))

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
        status = self._parser.get_status_code()
        head = Head(status, self._reason, self._fields)
        if 100 <= status < 200 and status != 101:
            self._reason, self._fields = b"", []
            assert self.receiver is not None
            self.receiver.interim(head)
            return
        head.framing = framing_of(self._fields)
        self._head = head
        self.reusable = self._parser.should_keep_alive()
        if self._bodiless:
            self.ended = True

    def on_body(self, body: bytes) -> None:
        if not self.ended:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._head is not None:
            self.ended = True


class Pool:
    """Keep-alive connections to one upstream. No limit on open ones: the upstream's is the only limit."""

    def __init__(self, route: RoutePlan, *, connect_s: float, keepalive_s: float, head_bytes: int) -> None:
        self._route = route
        self._connect_s = connect_s
        self._keepalive_s = keepalive_s
        self._idle: deque[Connection] = deque()
        self._tls = _tls(route)
        self._loop = asyncio.get_running_loop()
        self.head_bytes = head_bytes
        self._closed = False

    def get(self) -> Connection | None:
        """A live idle connection, the most recently used first, or None."""
        oldest = self._loop.time() - self._keepalive_s
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since >= oldest and not connection.transport.is_closing():
                return connection
            connection.transport.abort()
        return None

    def put(self, connection: Connection) -> None:
        if self._closed:
            connection.transport.abort()
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def sweep(self) -> None:
        """Close what has been idle for too long; called about once a second."""
        oldest = self._loop.time() - self._keepalive_s
        while self._idle and self._idle[0].idle_since < oldest:
            self._idle.popleft().transport.abort()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            self._idle.pop().transport.abort()

    async def connect(self) -> Connection:
        """A fresh connection. Raises UpstreamError."""
        route = self._route
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._loop, self),
                    route.host,
                    route.port,
                    ssl=self._tls,
                    server_hostname=route.host if self._tls else None,
                )
        except TimeoutError:
            raise UpstreamError("connect_timeout", f"{self._connect_s:g} s") from None
        except OSError as error:
            raise _translate(error) from None
        return connection


def _tls(route: RoutePlan) -> ssl.SSLContext | None:
    if route.scheme != "https":
        return None
    context = ssl.create_default_context(cafile=route.ca_file or None)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _translate(error: OSError) -> UpstreamError:
    """The one place where the system's errors become ours."""
    if isinstance(error, socket.gaierror):
        return UpstreamError("dns", error.strerror or "")
    if isinstance(error, ssl.SSLError):
        return UpstreamError("tls", error.reason or "")
    if isinstance(error, ConnectionRefusedError):
        return UpstreamError("connect_refused")
    return UpstreamError("connect_failed", error.strerror or type(error).__name__)
