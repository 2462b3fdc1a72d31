"""The client's side: aiohttp's server, stripped to what a relay needs.

aiohttp parses requests, keeps connections alive, lingers and drains; it never sees a response object of its
own, because the relay writes heads and bodies itself, byte for byte. What this file relies on of aiohttp is
`RequestHandler`'s contract with its request and response objects, pinned by `aiohttp<3.15` and by the tests.

What aiohttp leaves open is closed here: a head is bounded as a whole, not only line by line; a body whose
chunked framing breaks fails instead of waiting for ever; an error answered to a client that is still sending
is followed by a lingering close, so that the reset does not overtake the answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, Protocol, Self

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from proxy.pure.headers import response_head
from proxy.words.plan import WorkerPlan

_SILENT = logging.getLogger("proxy.downstream.aiohttp")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


_LINGER_S: Final = 2.0


class Sent:
    """What aiohttp takes for the response: it has already been written."""

    __slots__ = ("keep_alive", "linger")

    def __init__(self, keep_alive: bool, linger: Callable[[], Awaitable[None]] | None = None) -> None:
        self.keep_alive = keep_alive
        self.linger = linger

    async def prepare(self, request: object) -> None:
        return None

    async def write_eof(self) -> None:
        if self.linger is not None:
            await self.linger()


class Incoming:
    """What aiohttp takes for the request: the parsed head and the stream of the body, nothing computed."""

    __slots__ = ("_task", "message", "payload", "protocol", "started", "writer")

    def __init__(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: ClientProtocol,
        writer: AbstractStreamWriter,
        task: object,
    ) -> None:
        self.message = message
        self.payload = payload
        self.protocol = protocol
        self.writer = writer
        self.started = time.perf_counter()
        self._task = task
        protocol.begins(payload)

    def _cancel(self, error: BaseException) -> None:
        self.payload.set_exception(error)

    def _finish(self) -> None:
        return None


class Watcher(Protocol):
    """Who wants to know about one client connection while an exchange is on."""

    def client_resumed(self) -> None: ...
    def client_left(self) -> None:
        """The client has shut its sending side down, and that is taken for leaving."""

    def client_gone(self) -> None: ...


class ClientProtocol(RequestHandler):
    """One client connection."""

    __slots__ = (
        "_bad_request",
        "_deaf",
        "_head_bytes",
        "_head_limit",
        "_left",
        "_newest",
        "_serve_half_closed",
        "_spill",
        "half_closed",
        "watcher",
    )

    def __init__(
        self,
        server: DataServer,
        *,
        loop: asyncio.AbstractEventLoop,
        serve_half_closed: bool,
        head_limit: int,
        bad_request: Callable[[int, BaseException | None], None],
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self.watcher: Watcher | None = None
        self.half_closed = False
        self._serve_half_closed = serve_half_closed
        self._bad_request = bad_request
        self._head_limit = head_limit
        self._head_bytes = 0  # of a head that is not complete yet
        self._spill = 0  # the read before those: its last bytes may have begun that head
        self._newest: StreamReader = EMPTY_PAYLOAD  # the body of the last request that was read
        self._deaf = False
        self._left: asyncio.Event | None = None

    @property
    def last_request(self) -> bool:
        """After the exchange now on, this connection has nothing left to ask."""
        return self.half_closed and not self._messages

    @property
    def idle(self) -> bool:
        """No exchange is on, none waits, and no head is on its way."""
        return self.watcher is None and self._waits() and not self._head_bytes

    def _waits(self) -> bool:
        """aiohttp's task sleeps until the next request."""
        return self._waiter is not None and not self._waiter.done()

    def begins(self, payload: StreamReader) -> None:
        """An exchange begins, perhaps one that aiohttp read by itself (after a declined upgrade)."""
        if not self._messages:
            self._newest = payload

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._messages:
            self._newest = self._messages[-1][1]
        count, in_body = self._request_count, not self._newest.is_eof()
        super().data_received(data)
        if self._request_count != count:
            self._requests_read(len(data), in_body)
        elif in_body:
            self._head_bytes, self._spill = 0, len(data)
        elif not self._upgraded:
            self._head_bytes += len(data)
            if self._head_bytes > self._head_limit:
                self._deaf = True
                self._messages.append((_too_large(self._head_limit), EMPTY_PAYLOAD))
                self._request_count += 1
                if self._waiter is not None and not self._waiter.done():
                    self._waiter.set_result(None)

    def _requests_read(self, size: int, in_body: bool) -> None:
        """One or more heads are complete, or what came is none."""
        if isinstance(self._messages[-1][0], _ErrInfo):
            self._deaf = True
            if in_body and not self._newest.is_eof():
                self._newest.set_exception(RequestPayloadError("the body's framing is broken"))
        elif self._spill + self._head_bytes + size > self._head_limit:
            self._measure()
        self._newest = self._messages[-1][1]
        self._head_bytes, self._spill = 0, size

    def _measure(self) -> None:
        """Many bytes were read, perhaps of one head: look at each, stop at the first that is too large."""
        for position, (message, _) in enumerate(self._messages):
            if not isinstance(message, _ErrInfo) and _size(message) > self._head_limit:
                while len(self._messages) > position:
                    self._messages.pop()
                self._messages.append((_too_large(self._head_limit), EMPTY_PAYLOAD))
                self._deaf = True
                return

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.watcher is not None:
            self.watcher.client_resumed()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """True keeps the connection open for the responses that are still due."""
        self.half_closed = True
        if self._left is not None:
            self._left.set()
        busy = self._request_count > 0 and not self._waits()
        if self._serve_half_closed and busy and self._newest.is_eof() and not self._head_bytes:
            return True
        if self.watcher is not None:
            self.watcher.client_left()
        return None

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._left is not None:
            self._left.set()
        if self.watcher is not None:
            self.watcher.client_gone()
        super().connection_lost(exc)

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Any:
        """A request that is not HTTP. Answers and closes."""
        if isinstance(exc, LineTooLong):
            status = 431
        self._bad_request(status, exc)
        if self.transport is None:
            raise ConnectionResetError
        self._deaf = True
        text = _TEXTS.get(status) or message or "not an HTTP request"
        self.transport.write(local_response(status, _CAUSES.get(status, "bad_request"), text, b"close"))
        return Sent(False, self.linger)

    async def linger(self) -> None:
        """Close our side and read on for a moment: a close with unread data would destroy the answer."""
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write_eof()
        self._left = asyncio.Event()
        try:
            async with asyncio.timeout(_LINGER_S):
                await self._left.wait()
        except TimeoutError:
            return

    async def drain(self, within_s: float) -> None:
        """Wait for a client that has not yet read its response; one that does not read at all is cut off."""
        try:
            async with asyncio.timeout(within_s):
                await self._drain_helper()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
        except ConnectionError:
            return


def _size(message: RawRequestMessage) -> int:
    """Bytes of a head, as it came."""
    return len(message.method) + len(message.path) + sum(len(n) + len(v) + 4 for n, v in message.raw_headers)


def _too_large(limit: int) -> _ErrInfo:
    return _ErrInfo(status=431, exc=LineTooLong(b"", limit), message="")


class ClientBounds(NamedTuple):
    """Seconds that an idle client is kept, bytes of a request's head, whether half-closed ones are served."""

    keepalive_s: float
    head_bytes: int
    serve_half_closed: bool

    @classmethod
    def of(cls, plan: WorkerPlan) -> Self:
        return cls(plan.client_keepalive_s, plan.head_bytes, plan.serve_half_closed)


class DataServer(web.Server):
    """The protocol factory for `loop.create_server`."""

    def __init__(
        self,
        handler: Callable[[Incoming], Awaitable[Sent]],
        bounds: ClientBounds,
        bad_request: Callable[[int, BaseException | None], None],
    ) -> None:
        super().__init__(
            handler,  # type: ignore[arg-type] # Incoming and Sent stand for aiohttp's own, see above
            request_factory=Incoming,  # type: ignore[arg-type]
            logger=_SILENT,
            access_log=None,
            auto_decompress=False,
            max_headers=1000,
        )
        self._bad_request = bad_request
        self.adapt(bounds)

    def adapt(self, bounds: ClientBounds) -> None:
        """Take other bounds; connections that are open keep theirs."""
        self._bounds = bounds
        self._kwargs |= {
            "keepalive_timeout": bounds.keepalive_s,
            "max_line_size": bounds.head_bytes,
            "max_field_size": bounds.head_bytes,
        }

    def __call__(self) -> RequestHandler:
        return ClientProtocol(
            self,
            loop=self._loop,
            serve_half_closed=self._bounds.serve_half_closed,
            head_limit=self._bounds.head_bytes,
            bad_request=self._bad_request,
            **self._kwargs,
        )

    def close_idle(self) -> None:
        """Close the connections without an exchange. (aiohttp's `pre_shutdown` would deafen uploads, too.)"""
        for connection in self.connections:
            if isinstance(connection, ClientProtocol) and connection.idle:
                connection.force_close()


def local_response(
    status: int, cause: str, message: str, connection: bytes = b"", *, bodiless: bool = False
) -> bytes:
    """A whole response of the proxy's own: JSON that the vendors' SDKs read, a header that says who speaks.

    `connection` is the value of the Connection header, if one is needed; `bodiless` is for HEAD.
    """
    body = (
        b'{"type": "error", "error": {"type": "proxy_error", "code": "%b", "message": "refusal-proxy: %b"}}'
        % (cause.encode(), _plain(message))
    )
    headers = [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        (b"X-Refusal-Proxy-Error", cause.encode()),
    ]
    reason = _REASONS.get(status, b"Error")
    return response_head(status, reason, headers, connection=connection) + (b"" if bodiless else body)


_CAUSES = {431: "head_too_large", 500: "internal"}
_TEXTS = {431: "the request's head is larger than limits.head_bytes", 500: "a fault of the proxy's own"}
_REASONS = {
    400: b"Bad Request",
    404: b"Not Found",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


def _plain(message: str) -> bytes:
    """One line of printable ASCII without quotes or backslashes: safe inside a JSON string."""
    kept = (c if " " <= c <= "~" and c not in '"\\' else " " for c in message.split("\n", 1)[0][:200])
    return "".join(kept).encode()
