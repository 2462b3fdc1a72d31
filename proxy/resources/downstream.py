"""The client's side: aiohttp's server, stripped to what a relay needs.

aiohttp parses requests, keeps connections alive, lingers and drains; it never sees a response object of its
own, because the relay writes heads and bodies itself, byte for byte. What this file relies on of aiohttp is
`RequestHandler`'s contract with its request and response objects, pinned by `aiohttp<3.15` and by the tests.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from proxy.pure.headers import response_head

_SILENT = logging.getLogger("proxy.downstream.aiohttp")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False


class Sent:
    """What aiohttp takes for the response: it has already been written."""

    __slots__ = ("keep_alive",)

    def __init__(self, keep_alive: bool) -> None:
        self.keep_alive = keep_alive

    async def prepare(self, request: object) -> None:
        return None

    async def write_eof(self) -> None:
        return None


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

    def _cancel(self, error: BaseException) -> None:
        self.payload.set_exception(error)

    def _finish(self) -> None:
        return None


class Watcher(Protocol):
    """Who wants to know about one client connection while an exchange is on."""

    def client_resumed(self) -> None: ...
    def client_gone(self) -> None: ...


class ClientProtocol(RequestHandler):
    """One client connection."""

    __slots__ = ("_bad_request", "_serve_half_closed", "watcher")

    def __init__(
        self,
        server: DataServer,
        *,
        loop: asyncio.AbstractEventLoop,
        serve_half_closed: bool,
        bad_request: Callable[[int], None],
        **options: Any,
    ) -> None:
        super().__init__(server, loop=loop, **options)
        self.watcher: Watcher | None = None
        self._serve_half_closed = serve_half_closed
        self._bad_request = bad_request

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.watcher is not None:
            self.watcher.client_resumed()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        """True keeps the connection open for the response that is still due."""
        return True if self._serve_half_closed and self.watcher is not None else None

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.watcher is not None:
            self.watcher.client_gone()
        super().connection_lost(exc)

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> Any:
        """A request that is not HTTP. Answers and closes."""
        if self.transport is None:
            raise ConnectionResetError
        if isinstance(exc, LineTooLong):
            status = 431
        self._bad_request(status)
        self.transport.write(
            local_response(status, "bad_request", message or "not an HTTP request", close=True)
        )
        return Sent(False)


class DataServer(web.Server):
    """The protocol factory for `loop.create_server`."""

    def __init__(
        self,
        handler: Callable[[Incoming], Awaitable[Sent]],
        *,
        client_keepalive_s: float,
        head_bytes: int,
        serve_half_closed: bool,
        bad_request: Callable[[int], None],
    ) -> None:
        super().__init__(
            handler,  # type: ignore[arg-type] # Incoming and Sent stand for aiohttp's own, see above
            request_factory=Incoming,  # type: ignore[arg-type]
            logger=_SILENT,
            access_log=None,
            keepalive_timeout=client_keepalive_s,
            auto_decompress=False,
            max_line_size=head_bytes,
            max_field_size=head_bytes,
            max_headers=1000,
        )
        self._bad_request = bad_request
        self.serve_half_closed = serve_half_closed

    def __call__(self) -> RequestHandler:
        return ClientProtocol(
            self,
            loop=self._loop,
            serve_half_closed=self.serve_half_closed,
            bad_request=self._bad_request,
            **self._kwargs,
        )

    def close_idle(self) -> None:
        """Close the connections without an exchange. (aiohttp's `pre_shutdown` would deafen uploads, too.)"""
        for connection in self.connections:
            if isinstance(connection, ClientProtocol) and connection.watcher is None:
                connection.close()


def local_response(status: int, cause: str, message: str, *, close: bool) -> bytes:
    """A whole response of the proxy's own: JSON that the vendors' SDKs read, a header that says who speaks."""
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
    return response_head(status, reason, headers, connection=b"close" if close else b"") + body


_REASONS = {
    400: b"Bad Request",
    404: b"Not Found",
    408: b"Request Timeout",
    431: b"Request Header Fields Too Large",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
}


def _plain(message: str) -> bytes:
    """One line of printable ASCII without quotes or backslashes: safe inside a JSON string."""
    kept = (c if " " <= c <= "~" and c not in '"\\' else " " for c in message.split("\n", 1)[0][:200])
    return "".join(kept).encode()
