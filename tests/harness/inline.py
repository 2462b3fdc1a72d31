"""The data side inside the test's own process: for what cannot be seen from outside, such as its captures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from proxy.flows.forward import Forwarder
from proxy.pure.tally import Tally
from proxy.resources.downstream import ClientBounds, ClientProtocol, DataServer
from proxy.words.exchange import Capture
from proxy.words.plan import RoutePlan, WorkerPlan


@dataclass
class Outbox:
    """Takes what would go through the valve. `before` may raise."""

    captures: list[Capture] = field(default_factory=list)
    before: Callable[[Capture], None] = lambda _: None

    def offer(self, capture: Capture) -> None:
        self.before(capture)
        self.captures.append(capture)


def plan(upstream: str, **changes: Any) -> WorkerPlan:
    """One route to this URL, and the configuration's defaults for the rest."""
    url = urlsplit(upstream)
    route = RoutePlan("default", url.scheme, url.hostname or "", url.port or 80, url.path, "", "", False, "")
    values: dict[str, Any] = {
        "routes": (route,),
        "x_forwarded": False,
        "serve_half_closed": False,
        "request_copy_bytes": 256 << 10,
        "response_copy_bytes": 256 << 10,
        "copies_bytes": 256 << 20,
        "head_bytes": 64 << 10,
        "valve_bytes": 16 << 20,
        "connect_s": 5.0,
        "silence_s": 60.0,
        "upstream_keepalive_s": 4.0,
        "client_keepalive_s": 75.0,
        "drain_s": 5.0,
    }
    return WorkerPlan(**{**values, **changes})


@dataclass
class Inline:
    port: int
    forwarder: Forwarder
    tally: Tally
    outbox: Outbox
    faults: list[BaseException]
    server: DataServer

    def connections(self) -> list[ClientProtocol]:
        return [one for one in self.server.connections if isinstance(one, ClientProtocol)]

    async def capture(self, count: int = 1) -> Capture:
        """Wait for the n-th capture."""
        async with asyncio.timeout(5):
            while len(self.outbox.captures) < count:
                await asyncio.sleep(0.01)
        return self.outbox.captures[count - 1]

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not holds():
                await asyncio.sleep(0.01)

    @property
    def left(self) -> tuple[int, int]:
        """What must be nothing when all is over: open relays, bytes held by copies."""
        return len(self.forwarder._active), self.forwarder._budget.used


@asynccontextmanager
async def inline(upstream: str, **changes: Any) -> AsyncIterator[Inline]:
    """A Forwarder behind a real socket, with an outbox that one can look into."""
    faults: list[BaseException] = []
    tally, outbox = Tally(), Outbox()
    values = plan(upstream, **changes)
    forwarder = Forwarder(values, tally, outbox, faults.append)
    server = DataServer(forwarder.handle, ClientBounds.of(values), forwarder.refused)
    loop = asyncio.get_running_loop()
    acceptor = await loop.create_server(server, "127.0.0.1", 0)
    try:
        yield Inline(acceptor.sockets[0].getsockname()[1], forwarder, tally, outbox, faults, server)
    finally:
        acceptor.close()
        await server.shutdown(1.0)
        forwarder.close()
