"""The data side's flow: match a route, get a connection, pass the request up, let the relay bring it down.

Nothing of a body is parsed here, and nothing waits for the monitor: what an exchange leaves behind is one
capture in the outbox and a few counters.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from proxy.flows.relay import Relay
from proxy.pure.formats.paths import recognise
from proxy.pure.headers import (
    BadFraming,
    RawHeaders,
    forwarded,
    framing_of,
    request_head,
    value_of,
    websocket_asked,
)
from proxy.pure.routing import Routes, origin_form, upstream_target
from proxy.pure.tally import NO_ROUTE, Tally
from proxy.pure.tee import Budget, Tee
from proxy.resources.downstream import ClientProtocol, Incoming, Sent, local_response
from proxy.resources.pool import Pool, PoolBounds
from proxy.resources.upstream import Connection, UpstreamError
from proxy.words.exchange import Capture
from proxy.words.plan import RoutePlan, WorkerPlan


class Outbox(Protocol):
    """The worker's end of the valve."""

    def offer(self, capture: Capture) -> None: ...


class Forwarder:
    """One worker's traffic. `plan` may be exchanged while streams are open; each keeps its own route."""

    def __init__(
        self,
        plan: WorkerPlan,
        tally: Tally,
        outbox: Outbox,
        fault: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        """`fault` is told of every exception that is our own fault; it logs the place, never the message."""
        self.loop = asyncio.get_running_loop()
        self.tally = tally
        self.fault = fault
        self.draining = False
        self._drained = asyncio.Event()
        self._outbox = outbox
        self._active: set[Relay] = set()
        self._pools: dict[RoutePlan, Pool] = {}
        self._budget = Budget(plan.copies_bytes)
        self._run_id = os.urandom(5).hex()
        self._count = 0
        self.apply(plan)

    def apply(self, plan: WorkerPlan) -> None:
        """Take a new plan. Pools of upstreams that did not change are kept."""
        self.plan = plan
        self._routes = Routes(plan.routes)
        self._budget.limit = plan.copies_bytes
        bounds = PoolBounds(plan.connect_s, plan.upstream_keepalive_s, plan.head_bytes)
        before, self._pools = self._pools, {}
        for route in plan.routes:
            if route in before:
                self._pools[route] = before.pop(route)
                self._pools[route].adapt(bounds)
            else:
                self._pools[route] = Pool(route, bounds)
        for pool in before.values():
            pool.close()

    # --- one request

    async def handle(self, incoming: Incoming) -> Sent:
        """Take one request from aiohttp and return when its response has been written."""
        message = incoming.message
        protocol = incoming.protocol
        target = origin_form(message.path)
        path = target.partition("?")[0]
        route = self._routes.match(message.headers.get("Host", ""), path)
        if route is None:
            return self._refuse(incoming, 404, "no_route", "no route takes this host and path")
        if message.method == "CONNECT":
            incoming.payload.feed_eof()  # whatever follows is not for us: there is nothing to wait for
            return self._refuse(incoming, 501, "connect_method", "CONNECT is not offered", route.name)
        relay = Relay(self, incoming, route, path)
        protocol.watcher = relay
        self._active.add(relay)
        try:
            self._watch_conversation(relay)
            if protocol.transport is None:  # the client left before its request was looked at
                relay.client_gone()
            else:
                await self._pass(relay, message.raw_headers, target, protocol)
            if relay.end != "complete":  # nobody waits for what is not whole
                self._retire(relay)
            if protocol.writing_paused and protocol.transport is not None:
                await protocol.drain(self.plan.silence_s)
        except asyncio.CancelledError:
            relay.client_gone()
            raise
        except Exception as error:  # noqa: BLE001 - the client gets an answer, the log gets the place
            relay.faulted(error)
        finally:
            protocol.watcher = None
            self._retire(relay)
        return self._sent(relay, protocol)

    def _retire(self, relay: Relay) -> None:
        self._active.discard(relay)
        if self.draining and not self._active:
            self._drained.set()

    def _sent(self, relay: Relay, protocol: ClientProtocol) -> Sent:
        keep_alive = relay.keep_alive and not protocol.last_request
        transport, payload = protocol.transport, relay.incoming.payload
        if keep_alive or transport is None or transport.is_closing():
            return Sent(keep_alive)
        if transport.get_write_buffer_size():
            self.loop.call_later(self.plan.silence_s, transport.abort)
        if payload.exception() is not None:
            return Sent(False, protocol.linger)
        if not payload.is_eof():  # aiohttp reads on for a while; the client need not wait for that
            transport.write_eof()
        return Sent(False)

    async def _pass(self, relay: Relay, headers: RawHeaders, target: str, protocol: ClientProtocol) -> None:
        message = relay.incoming.message
        try:
            framing = framing_of(headers)
        except BadFraming as error:
            relay.refuse_head(str(error))
            return
        pool = self._pools[relay.route]
        connect_s = 0.0
        connection = pool.get()
        if connection is None:
            begin = time.perf_counter()
            connection = await self._dial(pool, relay)
            if connection is None:
                return
            connect_s = time.perf_counter() - begin
        relay.connection = connection
        websocket = (
            message.upgrade
            and not relay.http_1_0
            and relay.incoming.payload.is_eof()
            and websocket_asked(headers)
        )
        connection.begin(relay, bodiless=message.method == "HEAD", upgrade=websocket)
        extra: RawHeaders = ()
        if self.plan.x_forwarded:
            peer = protocol.peername
            headers, extra = forwarded(
                headers,
                client=(peer[0] if isinstance(peer, tuple) else "unknown").encode(),
                scheme=b"https" if protocol.ssl_context else b"http",
            )
        head = request_head(
            message.method.encode("latin-1"),
            upstream_target(relay.route, target).encode("utf-8", "surrogateescape"),
            headers,
            host=pool.authority,
            chunked=framing.chunked,
            websocket=websocket,
            extra=extra,
        )
        await self._send(relay, head, framing.chunked, connect_s)

    async def _dial(self, pool: Pool, relay: Relay) -> Connection | None:
        """A fresh connection, or None where the exchange ended; a client that leaves ends the dialling."""
        dial = self.loop.create_task(pool.connect())
        try:
            await asyncio.wait((dial, relay.done), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not dial.done():
                dial.cancel()
        if not dial.done():
            return None
        try:
            connection = dial.result()
        except UpstreamError as error:
            relay.uploaded = relay.incoming.payload.is_eof()
            relay.failed(error)
            return None
        if relay.done.done():
            pool.put(connection)
            return None
        return connection

    async def _send(self, relay: Relay, head: bytes, chunked: bool, connect_s: float) -> None:
        connection = relay.connection
        payload = relay.incoming.payload
        assert connection is not None
        if payload.is_eof() and payload.exception() is None:
            body = payload.read_nowait(-1)
            if relay.request_copy is not None and body:
                relay.request_copy.add(body)
            if chunked:
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            relay.uploaded = True
            connection.write(head + body)
            relay.sent_up(connect_s)
            await relay.done
            return
        connection.write(head)
        relay.sent_up(connect_s)
        upload = self.loop.create_task(relay.upload(chunked))
        try:
            await asyncio.wait((upload, relay.done), return_when=asyncio.FIRST_COMPLETED)
            if upload.done() and upload.exception() is not None and not relay.done.done():
                if payload.exception() is None:
                    upload.result()  # a fault of our own
                relay.refuse_body()
            await relay.done
        finally:
            upload.cancel()

    def _watch_conversation(self, relay: Relay) -> None:
        relay.format = recognise(relay.method, relay.path)
        if relay.format:
            relay.request_copy = Tee(self.plan.request_copy_bytes, self._budget)
            relay.response_copy = Tee(self.plan.response_copy_bytes, self._budget)

    def _refuse(self, incoming: Incoming, status: int, cause: str, text: str, route: str = NO_ROUTE) -> Sent:
        """Answer without any upstream."""
        message, protocol = incoming.message, incoming.protocol
        keep = incoming.payload.is_eof() and not message.should_close and message.method != "CONNECT"
        keep = keep and not self.draining and not protocol.last_request
        connection = b"" if keep else b"close"
        if keep and message.version < (1, 1):
            connection = b"keep-alive"
        bodiless = message.method == "HEAD"
        if protocol.transport is not None:
            protocol.transport.write(local_response(status, cause, text, connection, bodiless=bodiless))
            if not incoming.payload.is_eof():
                protocol.transport.write_eof()
        self.tally.request(route, message.method, status, time.perf_counter() - incoming.started)
        self.tally.not_scored(route, "not_a_conversation")
        return Sent(keep)

    def refused(self, status: int, error: BaseException | None = None) -> None:
        """aiohttp could not read a request: it has been answered."""
        self.tally.request(NO_ROUTE, "other", status, 0.0)
        if status == 500 and error is not None:
            self.fault(error)

    # --- what is left

    def ended(self, relay: Relay, overhead_s: float) -> None:
        """Count the exchange and hand its copy over. Called once for each relay; never raises."""
        try:
            self.tally.request(relay.route.name, relay.method, relay.status, overhead_s)
            self._hand_over(relay)
        except Exception as error:  # noqa: BLE001 - what monitors must not disturb what is monitored
            self.tally.not_scored(relay.route.name, "error")
            self.fault(error)

    def _hand_over(self, relay: Relay) -> None:
        name, request, response = relay.route.name, relay.request_copy, relay.response_copy
        if request is None or response is None:
            self.tally.not_scored(name, "error" if relay.faulty else "not_a_conversation")
            return
        if relay.faulty or request.given_up or response.given_up:
            request.release()
            response.release()
            if relay.faulty:
                self.tally.not_scored(name, "error")
            else:
                self.tally.drop("copies_full")
            return
        self._count += 1
        now = time.perf_counter()
        headers = relay.incoming.message.raw_headers
        self._outbox.offer(
            Capture(
                id=f"{self._run_id}{self._count:06x}",
                route=name,
                format=relay.format,
                path=relay.path if relay.path.isascii() else relay.path.encode("utf-8", "replace").decode(),
                status=relay.status,
                end=relay.end,
                request_content_encoding=value_of(headers, b"content-encoding"),
                response_content_type=relay.content_type,
                response_content_encoding=relay.content_encoding,
                finished_at=time.time(),
                duration_s=now - relay.started,
                first_byte_s=None if relay.first_byte is None else relay.first_byte - relay.started,
                request=request.take(),
                response=response.take(),
            )
        )

    def sweep(self) -> None:
        """About once a second: silent exchanges, stale connections."""
        now = self.loop.time()
        for relay in tuple(self._active):
            relay.overdue(now, self.plan.silence_s)
        for pool in self._pools.values():
            pool.sweep()

    def snapshot(self) -> dict[str, Any]:
        streams: dict[str, int] = {route.name: 0 for route in self.plan.routes}
        streams.update(Counter(relay.route.name for relay in self._active))
        return self.tally.snapshot(streams.items())

    async def drained(self, within_s: float) -> None:
        """Wait for the open exchanges; those that outlast the bound are broken off, never ended cleanly."""
        if not self._active:
            return
        try:
            async with asyncio.timeout(within_s):
                await self._drained.wait()
        except TimeoutError:
            for relay in tuple(self._active):
                relay.cut()

    def close(self) -> None:
        for pool in self._pools.values():
            pool.close()
