"""One exchange on its way through: request up, response down, a copy aside.

The theory: after the request has gone up, nothing here waits. Each read from the upstream becomes one write
to the client, in the same callback, and a reference in the copy. The handler's task sleeps on one future
until the exchange is over. Back-pressure is the transports': a client that does not read stops the reading
from the upstream; an upstream that does not read stops the reading from the client.

Every relay ends exactly once, in `_finish`: the upstream's connection is pooled or closed, the exchange is
counted, and the future is done, whatever the monitoring side does.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import TYPE_CHECKING

from proxy.flows.tunnel import Tunnel
from proxy.pure.headers import response_head, value_of
from proxy.pure.tee import Tee
from proxy.resources.downstream import Incoming, local_response
from proxy.resources.upstream import Connection, Head, UpstreamError
from proxy.words.exchange import End
from proxy.words.plan import RoutePlan

if TYPE_CHECKING:
    from proxy.flows.forward import Forwarder

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 seconds
_GATEWAY_TIMEOUTS = ("connect_timeout", "silent")
_MESSAGES = {
    "connect_refused": "the upstream refused the connection",
    "connect_timeout": "the upstream did not accept the connection in time",
    "connect_failed": "the upstream could not be reached",
    "dns": "the upstream's name could not be resolved",
    "tls": "the upstream's certificate or TLS handshake failed",
    "closed_early": "the upstream closed the connection before it answered",
    "malformed": "the upstream's answer was not valid HTTP",
    "silent": "the upstream sent nothing for too long",
    "internal": "a fault of the proxy's own",
}


class Relay:
    """Implements the upstream's `Receiver` and the client's `Watcher` for one exchange."""

    __slots__ = (
        "_chunked",
        "_close_delimited",
        "_forwarder",
        "_overhead",
        "_protocol",
        "_stalled",
        "_transport",
        "_tunnel",
        "_writable",
        "bodiless",
        "connection",
        "content_encoding",
        "content_type",
        "done",
        "end",
        "faulty",
        "first_byte",
        "format",
        "head_sent",
        "http_1_0",
        "incoming",
        "keep_alive",
        "method",
        "path",
        "request_copy",
        "response_copy",
        "route",
        "started",
        "status",
        "uploaded",
    )

    def __init__(self, forwarder: Forwarder, incoming: Incoming, route: RoutePlan, path: str) -> None:
        message = incoming.message
        self._forwarder = forwarder
        self._protocol = incoming.protocol
        self._transport = incoming.protocol.transport
        self.incoming = incoming
        self.route = route
        self.path = path
        self.method = message.method
        self.started = incoming.started
        self.http_1_0 = message.version < (1, 1)
        # After an upgrade that is dropped, aiohttp has lost what followed it in the same read.
        dropped = message.upgrade and message.headers.get("Upgrade", "").lower() != "websocket"
        self.keep_alive = not (message.should_close or dropped)
        self.connection: Connection | None = None
        self.done: asyncio.Future[None] = forwarder.loop.create_future()
        self.format = ""
        self.request_copy: Tee | None = None
        self.response_copy: Tee | None = None
        self.status = 0
        self.end: End = "complete"
        self.faulty = False
        self.head_sent = False
        self.uploaded = False
        self.bodiless = False
        self.first_byte: float | None = None
        self.content_type = ""
        self.content_encoding = ""
        self._chunked = False
        self._close_delimited = False
        self._tunnel: Tunnel | None = None
        self._stalled = False
        self._overhead = 0.0
        self._writable: asyncio.Future[None] | None = None

    # --- the request up

    def sent_up(self, connect_s: float) -> None:
        """The request's head (and most often its body) has been written; `connect_s` was not our doing."""
        self._overhead = time.perf_counter() - self.started - connect_s

    async def upload(self, chunked: bool) -> None:
        """Pass the request's body on as it comes, until it ends or the exchange is over."""
        payload, connection = self.incoming.payload, self.connection
        assert connection is not None
        while piece := await payload.readany():
            if self.done.done():  # the copy has been taken, the connection is no longer ours
                return
            if self.request_copy is not None:
                self.request_copy.add(piece)
            connection.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if connection.paused_writing:
                self._writable = self._forwarder.loop.create_future()
                await self._writable
                self._writable = None
        if self.done.done():
            return
        if chunked:
            connection.write(b"0\r\n\r\n")
        self.uploaded = True

    def upload_resumed(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- the response down

    def interim(self, head: Head) -> None:
        """A 1xx goes on as it is, except to HTTP/1.0, which has none."""
        if self._transport is not None and not self.http_1_0 and not self.done.done():
            self._transport.write(response_head(head.status, head.reason, head.headers))

    def received(self, head: Head | None, parts: list[bytes], ended: bool) -> None:
        transport = self._transport
        if transport is None or self.done.done():
            return
        begin = time.perf_counter()
        out: list[bytes] = []
        if head is not None:
            if head.status == 101:
                self._open_tunnel(transport, head)
                return
            out.append(self._head_down(head))
        if parts:
            if self.first_byte is None:
                self.first_byte = begin
            if self.response_copy is not None:
                self.response_copy.extend(parts)
            if self._chunked:
                out += [b"%x\r\n%b\r\n" % (len(part), part) for part in parts]
            elif not self.bodiless:
                out += parts
        if ended and self._chunked:
            out.append(b"0\r\n\r\n")
        if out:
            transport.write(out[0] if len(out) == 1 else b"".join(out))
        if head is not None:
            self._overhead += time.perf_counter() - begin
        if ended:
            self._finish("complete")
        elif self._protocol.writing_paused and self.connection is not None:
            self._stalled = True
            self.connection.transport.pause_reading()

    def _head_down(self, head: Head) -> bytes:
        headers, framing = head.headers, head.framing
        self.status = head.status
        self.head_sent = True
        self.bodiless = self.method == "HEAD" or head.status in (204, 304)
        if not self.bodiless and framing.length is None:
            if self.http_1_0:
                self._close_delimited = True
                self.keep_alive = False
            else:
                self._chunked = True
        if self.response_copy is not None:
            self.content_type = value_of(headers, b"content-type")
            self.content_encoding = value_of(headers, b"content-encoding")
        return response_head(
            head.status, head.reason, headers, chunked=self._chunked, connection=self._connection_header()
        )

    def _connection_header(self) -> bytes:
        if not self.uploaded or self._forwarder.draining or self._protocol.last_request:
            self.keep_alive = False
        if not self.keep_alive:
            return b"close"
        return b"keep-alive" if self.http_1_0 else b""

    def client_resumed(self) -> None:
        if self._stalled and self.connection is not None:
            self._stalled = False
            if not self.connection.transport.is_closing():
                self.connection.last_byte_at = self._forwarder.loop.time()
                self.connection.transport.resume_reading()

    def _open_tunnel(self, transport: asyncio.Transport, head: Head) -> None:
        connection = self.connection
        assert connection is not None
        self.status, self.head_sent, self.keep_alive, self.connection = 101, True, False, None
        transport.write(response_head(101, head.reason, head.headers, keep_upgrade=True))
        self._tunnel = Tunnel(
            self._protocol, transport, connection, lambda: self._finish("complete"), self._forwarder.fault
        )
        self._tunnel.open()

    def tunnelled(self, data: bytes) -> None:
        """The tunnel gets these."""

    # --- endings

    def failed(self, error: UpstreamError) -> None:
        """The upstream let go, or never spoke. Before the head: an answer of our own. After it: break off."""
        if self.done.done():
            return
        self._forwarder.tally.error(self.route.name, error.cause)
        if not self.head_sent:
            self.answer(504 if error.cause in _GATEWAY_TIMEOUTS else 502, error.cause)
        else:
            self._break_off()
        self._finish("upstream_silent" if error.cause == "silent" else "upstream_broke")

    def faulted(self, error: Exception) -> None:
        """A fault of our own: reported by its place, answered or broken off, never left open."""
        self._forwarder.fault(error)
        self.faulty = True
        if not self.head_sent:
            self.answer(500, "internal")
        else:
            self._break_off()
        self._finish("upstream_broke")

    def refuse_head(self, text: str) -> None:
        """The request's head says two things about its body."""
        self.answer(400, "bad_framing", text)
        self._finish("complete")

    def refuse_body(self) -> None:
        """The client's own framing broke in mid-body: its request cannot be completed."""
        if not self.head_sent:
            self.answer(400, "bad_body", "the request's body is not framed as its head says")
        else:
            self._break_off()
        self._finish("client_gone")

    def answer(self, status: int, cause: str, message: str = "") -> None:
        """A response of the proxy's own."""
        if self._transport is None or self.head_sent:
            return
        self.status = status
        self.head_sent = True
        text = message or _MESSAGES.get(cause, cause)
        self._transport.write(
            local_response(status, cause, text, self._connection_header(), bodiless=self.method == "HEAD")
        )

    def _break_off(self, *, flush: bool = True) -> None:
        """End the client's transfer so that no client can take it for whole."""
        self.keep_alive = False
        transport = self._transport
        if transport is None:
            return
        if self._close_delimited:  # a clean end would look like the body's: only a reset says otherwise
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE
            )
        if flush:
            transport.close()  # what was received before still goes out first
        else:
            transport.abort()

    def client_left(self) -> None:
        """The client shut its sending side down, and the configuration takes that for leaving."""
        if not self.done.done():
            if self.head_sent:
                self._break_off(flush=False)
            self.client_gone()

    def client_gone(self) -> None:
        """The client left: the upstream's work is stopped at once, for generation costs money."""
        self._transport = None
        if self.done.done():
            return
        self._forwarder.tally.disconnect(self.route.name)
        if not self.head_sent:
            self.status = 499
        self._finish("client_gone")

    def cut(self) -> None:
        """We have to go (drain time is over): break off what is open."""
        if self.done.done():
            if self._transport is not None:  # the client has not yet read the end
                self._transport.abort()
            return
        if self._tunnel is not None:
            self._tunnel.close()
        elif not self.head_sent:
            self.answer(503, "shutting_down", "the proxy is shutting down")
        else:
            self._break_off()
        self._finish("upstream_broke")

    def overdue(self, now: float, silence_s: float) -> None:
        """Called about once a second: nobody has moved a byte for too long."""
        connection = self.connection
        if connection is None or now - connection.last_byte_at <= silence_s:
            return
        if self._stalled or not (self.uploaded or connection.paused_writing):
            self._client_silent()
        else:
            self.failed(UpstreamError("silent"))

    def _client_silent(self) -> None:
        """It is the client who does not move: it does not read, or does not send the rest of its body."""
        if self._stalled:
            self._break_off(flush=False)
        elif not self.head_sent:
            self.answer(408, "client_silent", "the request's body did not arrive in time")
        else:
            self._break_off()
        self.client_gone()

    def _finish(self, end: End) -> None:
        if self.done.done():
            return
        self.end = end
        self._tunnel = None
        self.done.set_result(None)
        connection = self.connection
        if connection is not None:
            self.connection = None
            if self._stalled or not self.uploaded or end != "complete":
                connection.reusable = False
            connection.release()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._forwarder.ended(self, self._overhead)
