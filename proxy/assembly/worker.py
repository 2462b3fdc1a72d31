"""A worker process: the data side and nothing else. Never imports the classifier, the database, the config.

python -m proxy.assembly.worker      (the supervisor starts it, with a listening socket and two pipes)
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import orjson
import uvloop

from proxy.assembly.child import Orders, first_order, leave_signals_to_parent
from proxy.flows.forward import Forwarder
from proxy.pure.tally import Tally
from proxy.resources.downstream import ClientBounds, DataServer
from proxy.resources.valve import ValveClient
from proxy.words.plan import WorkerPlan

_SWEEP_S = 1.0
_LAST_WORDS_S = 2.0


async def _serve(start: dict[str, Any]) -> None:
    loop = asyncio.get_running_loop()
    plan = WorkerPlan.from_json(start["plan"])
    tally = Tally()
    valve = ValveClient(Path(start["valve"]), start["worker"], plan.valve_bytes, tally, Random())  # noqa: S311
    forwarder = Forwarder(plan, tally, valve, _report)
    loop.set_exception_handler(lambda _, context: _report(context.get("exception") or RuntimeError()))
    server = DataServer(forwarder.handle, ClientBounds.of(plan), forwarder.refused)

    def apply(order: dict[str, Any]) -> None:
        changed = WorkerPlan.from_json(order["plan"])
        forwarder.apply(changed)
        server.adapt(ClientBounds.of(changed))
        valve.resize(changed.valve_bytes)

    def sweep() -> None:
        forwarder.sweep()
        valve.send_stats()
        loop.call_later(_SWEEP_S, sweep)

    orders = Orders(apply, healthy=lambda: True)
    loop.add_signal_handler(signal.SIGTERM, orders.stopped.set)
    listener = socket.socket(fileno=start["listen_fd"])
    acceptor = await loop.create_server(server, sock=listener, backlog=start["backlog"])
    valve.start(forwarder.snapshot)
    listening = loop.create_task(orders.listen())
    sweep()
    orders.ready()
    gc.collect()
    gc.freeze()  # what is loaded now stays: the collector need not look at it again
    gc.set_threshold(10_000, 50, 50)

    await orders.stopped.wait()
    await _drain(acceptor, server, forwarder, valve)
    listening.cancel()


def _report(error: BaseException) -> None:
    """One log line for a fault of our own: its place, never its message, which may quote what passed."""
    from proxy.resources.log import place  # noqa: PLC0415 - structlog costs memory, faults are rare

    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {
        "event": "data side fault",
        "level": "error",
        "time": now,
        "place": place(error),
        "pid": os.getpid(),
    }
    with suppress(OSError):
        os.write(2, orjson.dumps(line) + b"\n")


async def _drain(
    acceptor: asyncio.AbstractServer, server: DataServer, forwarder: Forwarder, valve: ValveClient
) -> None:
    """Stop accepting, let open exchanges end within bounds, hand over the last captures."""
    acceptor.close()
    forwarder.draining = True
    server.close_idle()
    await forwarder.drained(forwarder.plan.drain_s)
    await server.shutdown(_LAST_WORDS_S)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LAST_WORDS_S
    valve.send_stats()
    # Polled, once in a life: an event would have to be set for every capture.
    while valve.connected and valve.unrecorded and loop.time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    valve.send_stats()
    await asyncio.sleep(0)
    forwarder.close()
    valve.close()


def main() -> None:
    leave_signals_to_parent()
    start = first_order()
    uvloop.run(_serve(start))


if __name__ == "__main__":
    main()
