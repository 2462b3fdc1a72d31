"""The data side's flow: match a route, get a connection, pass the request up, let the relay bring it down.

Nothing of a body is parsed here, and nothing waits for the monitor: what an exchange leaves behind is one
capture in the outbox and a few counters.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from typing import Any, Protocol

from proxy.flows.relay import Relay, without_forwarded
from proxy.pure.formats.paths import recognise
from proxy.pure.headers import BadFraming, RawHeaders, framing_of, request_head, value_of
from proxy.pure.routing import Routes, host_name, origin_form, upstream_target
from proxy.pure.tally import NO_ROUTE, Tally
from proxy.pure.tee import Budget, Tee
from proxy.resources.downstream import ClientProtocol, Incoming, Sent, local_response
from proxy.resources.upstream import Pool, UpstreamError
from proxy.words.exchange import Capture
from proxy.words.plan import RoutePlan, WorkerPlan


class Outbox(Protocol):
    """The worker's end of the valve."""

    def offer(self, capture: Capture) -> None: ...


class Forwarder:
    """One worker's traffic. `plan` may be exchanged while streams are open; each keeps its own route."""

    def __init__(self, plan: WorkerPlan, tally: Tally, outbox: Outbox) -> None:
        self.loop = asyncio.get_running_loop()
        self.tally = tally
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
        before, self._pools = self._pools, {}
        for route in plan.routes:
            self._pools[route] = (before.pop(route) if route in before else None) or Pool(
                route,
                connect_s=plan.connect_s,
                keepalive_s=plan.upstream_keepalive_s,
                head_bytes=plan.head_bytes,
            )
        for pool in before.values():
            pool.close()

    # --- one request

    async def handle(self, incoming: Incoming) -> Sent:
        message = incoming.message
        protocol = incoming.protocol
        if protocol.transport is None:
            raise ConnectionResetError
        headers: RawHeaders = message.raw_headers
        target = origin_form(message.path)
        path = target.partition("?")[0]
        route = self._routes.match(message.headers.get("Host", ""), path)
        if route is None:
            return self._refuse(incoming, 404, "no_route", "no route takes this host and path")
        if message.method == "CONNECT":
            return self._refuse(incoming, 501, "connect_method", "CONNECT is not offered", route.name)
        relay = Relay(self, incoming, route, path)
        protocol.watcher = relay
        self._active.add(relay)
        self._watch_conversation(relay)
        try:
            await self._pass(relay, headers, target, protocol)
        except asyncio.CancelledError:
            relay.client_gone()
            raise
        finally:
            protocol.watcher = None
            self._active.discard(relay)
            if self.draining and not self._active:
                self._drained.set()
        return Sent(relay.keep_alive)

    async def _pass(self, relay: Relay, headers: RawHeaders, target: str, protocol: ClientProtocol) -> None:
        message = relay.incoming.message
        try:
            framing = framing_of(headers)
        except BadFraming as error:
            relay.answer(400, "bad_framing", str(error))
            self.ended(relay, 0.0)
            return
        pool = self._pools[relay.route]
        connect_s = 0.0
        connection = pool.get()
        if connection is None:
            begin = time.perf_counter()
            try:
                connection = await pool.connect()
            except UpstreamError as error:
                relay.uploaded = relay.incoming.payload.is_eof()
                relay.failed(error)
                return
            connect_s = time.perf_counter() - begin
            if relay.done.done():  # the client left while we dialled
                pool.put(connection)
                return
        relay.connection = connection
        connection.begin(relay, bodiless=message.method == "HEAD")
        websocket = message.upgrade and value_of(headers, b"upgrade").lower() == "websocket"
        extra: list[tuple[bytes, bytes]] = []
        if self.plan.x_forwarded:
            headers, extra = self._forwarded(headers, protocol, message.headers.get("Host", ""))
        head = request_head(
            message.method.encode("latin-1"),
            upstream_target(relay.route, target).encode("utf-8", "surrogateescape"),
            headers,
            host=relay.route.authority.encode("latin-1"),
            chunked=framing.chunked,
            websocket=websocket,
            extra=extra,
        )
        await self._send(relay, head, framing.chunked, connect_s)

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
        await asyncio.wait((upload, relay.done), return_when=asyncio.FIRST_COMPLETED)
        if upload.done():
            error = upload.exception()
            if error is not None and not relay.done.done():
                self._upload_failed(relay)
        else:
            upload.cancel()
        await relay.done

    @staticmethod
    def _upload_failed(relay: Relay) -> None:
        """The client's own framing broke in mid-body: its request cannot be completed."""
        relay.answer(400, "bad_body", "the request's body is not framed as its head says")
        relay.client_gone()

    def _watch_conversation(self, relay: Relay) -> None:
        relay.format = recognise(relay.method, relay.path)
        if relay.format:
            relay.request_copy = Tee(self.plan.request_copy_bytes, self._budget)
            relay.response_copy = Tee(self.plan.response_copy_bytes, self._budget)

    def _refuse(self, incoming: Incoming, status: int, cause: str, text: str, route: str = NO_ROUTE) -> Sent:
        """Answer without any upstream."""
        protocol = incoming.protocol
        keep = incoming.payload.is_eof() and not incoming.message.should_close
        assert protocol.transport is not None
        protocol.transport.write(local_response(status, cause, text, close=not keep))
        self.tally.request(route, incoming.message.method, status, time.perf_counter() - incoming.started)
        self.tally.not_scored(route, "not_a_conversation")
        return Sent(keep)

    def refused(self, status: int) -> None:
        """aiohttp could not read a request: it has been answered."""
        self.tally.request(NO_ROUTE, "other", status, 0.0)

    def _forwarded(
        self, headers: RawHeaders, protocol: ClientProtocol, host: str
    ) -> tuple[RawHeaders, list[tuple[bytes, bytes]]]:
        kept, before = without_forwarded(headers)
        peer = protocol.peername
        client = (peer[0] if isinstance(peer, tuple) else "unknown").encode()
        scheme = b"https" if protocol.ssl_context else b"http"
        return kept, [
            (b"X-Forwarded-For", before + b", " + client if before else client),
            (b"X-Forwarded-Proto", scheme),
            (b"X-Forwarded-Host", host_name(host).encode("latin-1", "replace")),
        ]

    # --- what is left

    def ended(self, relay: Relay, overhead_s: float) -> None:
        """Count the exchange and hand its copy over. Called once for each relay."""
        name = relay.route.name
        self.tally.request(name, relay.method, relay.status, overhead_s)
        if relay.request_copy is None or relay.response_copy is None:
            self.tally.not_scored(name, "not_a_conversation")
            return
        if relay.request_copy.given_up or relay.response_copy.given_up:
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
                request=relay.request_copy.take(),
                response=relay.response_copy.take(),
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
