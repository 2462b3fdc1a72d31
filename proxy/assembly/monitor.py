"""The monitor process: the valve's other end, the only model, the only registry, the admin port.

python -m proxy.assembly.monitor      (the supervisor starts it, with two listening sockets and two pipes)
"""

from __future__ import annotations

import asyncio
import os
import socket
from random import Random
from typing import Any, Final

import uvloop
from aiohttp import web
from prometheus_client import CollectorRegistry

from proxy import __version__
from proxy.assembly.admin import make_admin
from proxy.assembly.child import Orders, first_order, leave_signals_to_parent
from proxy.flows.monitor import Monitor
from proxy.resources.log import configure
from proxy.resources.metrics import Metrics
from proxy.resources.model import Model
from proxy.resources.valve import ValveServer
from proxy.words.config import Config, load
from proxy.words.exchange import Capture

NICENESS: Final = 10  # traffic goes first also where both share a core
_STOP_S: Final = 10.0


class _Process:
    """Wires the parts together; they know each other only through callbacks."""

    def __init__(self, start: dict[str, Any]) -> None:
        self._start = start
        self.config = load(None, start["config"])
        self._log = configure(self.config.log).bind(role="monitor")
        self._metrics = Metrics(CollectorRegistry(), self.config, self._log, __version__)
        self._model = Model(self._log)
        self._valve = ValveServer(
            body_bytes=_body_bytes(self.config),
            captured=self._captured,
            counted=self._metrics.workers.update,
            left=self._metrics.workers.forget,
            bad_frame=self._bad_frame,
        )
        self._monitor = Monitor(
            self.config,
            metrics=self._metrics,
            model=self._model,
            rng=Random(),  # noqa: S311 - chooses what to drop, keeps no secret
            log=self._log,
            recorded=self._valve.recorded,
        )

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        orders = Orders(self._apply, healthy=self._healthy)
        self._monitor.start()
        listener = socket.socket(fileno=self._start["valve_fd"])
        valve = await loop.create_unix_server(self._valve.line, sock=listener)
        app = make_admin(
            metrics=self._metrics,
            classifier_state=lambda: self._model.state,
            routes=lambda: self.config.all_routes,
            workers=lambda: len(self._valve.workers),
            version=__version__,
        )
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.SockSite(runner, socket.socket(fileno=self._start["admin_fd"])).start()
        listening = loop.create_task(orders.listen())
        orders.ready()
        await orders.stopped.wait()
        await self._monitor.stop(_STOP_S)
        valve.close()  # until here: uvloop closes a server that nobody holds
        await runner.cleanup()
        listening.cancel()

    def _captured(self, capture: Capture, token: object) -> None:
        self._monitor.offer(capture, token)

    def _bad_frame(self, reason: str) -> None:
        self._log.error("a worker sent a bad frame", reason=reason)

    def _healthy(self) -> bool:
        """A scoring thread that hangs is a hung monitor: without a heartbeat the parent replaces it."""
        return self._monitor.stalled_s < self.config.timeouts.hung_s

    def _apply(self, order: dict[str, Any]) -> None:
        self.config = load(None, order["config"])
        self._valve.admit(_body_bytes(self.config))
        self._monitor.reload(self.config)


def _body_bytes(config: Config) -> int:
    return config.limits.request_copy_bytes + config.limits.response_copy_bytes


async def _run(start: dict[str, Any]) -> None:
    await _Process(start).run()


def main() -> None:
    leave_signals_to_parent()
    start = first_order()
    os.nice(NICENESS)
    uvloop.run(_run(start))


if __name__ == "__main__":
    main()
