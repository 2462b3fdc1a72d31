"""What worker and monitor processes share: orders come in on standard input, a heartbeat goes out.

The parent writes one JSON line an order: `start` first, then any number of `reload`, then `stop`. The end of
the input means that the parent is gone: the child drains as if it had been stopped, so no orphan is left.
The child writes `ready` once, then `.` about once a second while it is healthy; anything that holds up its
event loop holds up the heartbeat, and the parent replaces it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import orjson

HEARTBEAT_S: Final = 1.0


class Orders:
    """The child's end of the two pipes."""

    def __init__(self, apply: Callable[[dict[str, Any]], None], healthy: Callable[[], bool]) -> None:
        self.stopped = asyncio.Event()
        self._apply = apply
        self._healthy = healthy
        self._loop = asyncio.get_running_loop()

    async def listen(self) -> None:
        """Read orders until `stop` or the end."""
        reader = asyncio.StreamReader(limit=16 << 20)
        await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            order = orjson.loads(line)
            if order["order"] == "stop":
                break
            self._apply(order)
        self.stopped.set()

    def ready(self) -> None:
        self._write(b"ready\n")
        self._tick()

    def _tick(self) -> None:
        if self._healthy():
            self._write(b".\n")
        self._loop.call_later(HEARTBEAT_S, self._tick)

    @staticmethod
    def _write(text: bytes) -> None:
        try:
            os.write(sys.stdout.fileno(), text)
        except OSError:  # the parent is gone; the end of standard input says so too
            return


def first_order() -> dict[str, Any]:
    """The `start` order, read before there is an event loop. The rest of the pipe stays unread."""
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(sys.stdin.fileno(), 1)
        if not piece:
            raise SystemExit(0)
        line += piece
    order: dict[str, Any] = orjson.loads(line)
    return order


def leave_signals_to_parent() -> None:
    """Ctrl-C and `kill -- -GROUP` reach the whole group: the parent alone decides what they mean."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
