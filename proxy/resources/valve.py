"""The one-way valve between the data side and the monitor: a Unix socket that nobody ever waits for.

The worker's end keeps captures in a bounded sample and writes them in batches whenever the socket takes
them; what does not fit is evicted at random and counted, and so is what was sent to a monitor that died
before it said that it had recorded it. The monitor's end reads, hands captures on, and writes back how much
has been recorded; a new monitor gets the counters from where the last one's receipts ended. Bounded in bytes
on both sides: the outbox by the plan, the socket by the kernel, one frame by `frame_limit`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from proxy.pure.frames import (
    CAPTURE,
    HEAD_BYTES,
    HELLO,
    STATS,
    BadFrame,
    FrameReader,
    Receipt,
    ReceiptReader,
    capture_frame,
    capture_from,
    frame,
)
from proxy.pure.queue import BoundedSample
from proxy.pure.snapshots import Snapshot, since
from proxy.pure.tally import Tally
from proxy.words.exchange import Capture

_BATCH_BYTES: Final = 256 << 10
# The monitor wakes thirty times a second, not once a request. At 5 ms it woke just as the next request of a
# steady 200 a second came by, and where both share a core the p99 of the first byte rose from 0.8 to 4 ms.
_FLUSH_AFTER_S: Final = 0.033
_RECONNECT_S: Final = 0.25
_COUNTERS_BYTES: Final = 1 << 20  # a worker's counters in one frame, with hundreds of routes
_SNAPSHOTS: Final = 64  # without a receipt; a monitor silent for so long is replaced long before


class ValveClient(asyncio.Protocol):
    """The worker's end. `offer` costs one frame and never waits."""

    def __init__(self, path: Path, worker_id: str, limit: int, tally: Tally, rng: Random) -> None:
        self._path = path
        self._worker_id = worker_id
        self._limit = limit
        self._tally = tally
        self._snapshot: Callable[[], dict[str, Any]] = dict
        self._loop = asyncio.get_running_loop()
        self._waiting: BoundedSample[bytes] = BoundedSample(limit, 1_000_000, rng)
        self._transport: asyncio.Transport | None = None
        self._receipts = ReceiptReader()
        self._paused = False
        self._flush_due = False
        self._stats_due = False
        self._life: int | None = None  # the monitor that these have been delivered to, or None so far
        self._delivered: Snapshot = {}
        self._base: Snapshot = {}  # what earlier monitors had
        self._undelivered: deque[tuple[int, Snapshot]] = deque(maxlen=_SNAPSHOTS)
        self._snapshots = 0
        self._introduced = False
        self._dial: asyncio.Task[None] | None = None
        self._sent = 0
        self._recorded = 0

    def start(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        """Begin to dial. `snapshot` gives the worker's counters; they go first on every new connection."""
        self._snapshot = snapshot
        self._dial = self._loop.create_task(self._keep_connected())

    def offer(self, capture: Capture) -> None:
        packed = capture_frame(capture)
        evicted = self._waiting.offer(packed, len(packed))
        if evicted:
            self._tally.drop("too_large" if evicted[0] is packed else "valve_full", len(evicted))
        if not self._flush_due and self._introduced and not self._paused:
            self._flush_due = True
            self._loop.call_later(_FLUSH_AFTER_S, self._flush)

    def resize(self, limit: int) -> None:
        if limit != self._limit:
            self._limit = limit
            self._tally.drop("valve_full", len(self._waiting.resize(limit, 1_000_000)))

    def send_stats(self) -> None:
        """Counters go past the queue: a full valve is when they matter most. At most one set waits."""
        self._stats_due = self._paused
        if self._transport is not None and self._introduced and not self._paused:
            snapshot = self._snapshot()
            self._snapshots += 1
            self._undelivered.append((self._snapshots, snapshot))
            self._transport.write(frame(STATS, since(snapshot, self._base)))

    @property
    def unrecorded(self) -> int:
        """Captures that wait here or that the monitor has not yet recorded."""
        return len(self._waiting) + self._sent - self._recorded

    @property
    def connected(self) -> bool:
        return self._transport is not None

    def close(self) -> None:
        if self._dial is not None:
            self._dial.cancel()
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        self._flush_due = False
        while len(self._waiting) and self._transport is not None and self._introduced and not self._paused:
            batch: list[bytes] = []
            size = 0
            while len(self._waiting) and size < _BATCH_BYTES:
                packed = self._waiting.take(1)[0]
                batch.append(packed)
                size += len(packed)
            self._sent += len(batch)
            self._transport.write(b"".join(batch))

    async def _keep_connected(self) -> None:
        """The only one who dials, so that there are never two connections."""
        while True:
            if self._transport is None:
                with contextlib.suppress(OSError):  # no monitor now: the supervisor is at it
                    await self._loop.create_unix_connection(lambda: self, str(self._path))
            await asyncio.sleep(_RECONNECT_S)

    # --- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._paused = False
        self._receipts = ReceiptReader()
        self._sent = self._recorded = self._snapshots = 0
        self._introduced = False
        self._transport.write(frame(HELLO, {"worker": self._worker_id}))

    def data_received(self, data: bytes) -> None:
        receipt = self._receipts.feed(data)
        if receipt is None:
            return
        self._recorded = receipt.captures
        while self._undelivered and self._undelivered[0][0] <= receipt.snapshots:
            self._delivered = self._undelivered.popleft()[1]
        if not self._introduced:
            self._meet(receipt.life)

    def _meet(self, life: int) -> None:
        """The first word of a monitor: from here on it is sent to."""
        if life != self._life:
            self._life, self._base = life, self._delivered
        self._introduced = True
        self.send_stats()
        self._flush()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._stats_due:
            self.send_stats()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._introduced = False
        self._tally.drop("monitor_lost", self._sent - self._recorded)
        self._sent = self._recorded = 0
        self._undelivered.clear()


class ValveServer:
    """The monitor's end: any number of workers. `body_bytes` is what the bodies of one capture may hold."""

    def __init__(
        self,
        *,
        body_bytes: int,
        captured: Callable[[Capture, object], None],
        counted: Callable[[str, dict[str, Any]], None],
        left: Callable[[str], None],
        bad_frame: Callable[[str], None],
    ) -> None:
        self.frame_limit = 0
        self.captured = captured
        self.counted = counted
        self.left = left
        self.bad_frame = bad_frame
        self.workers: set[_WorkerLine] = set()
        self.life = int.from_bytes(os.urandom(8))
        self._loop = asyncio.get_running_loop()
        self.admit(body_bytes)

    def admit(self, body_bytes: int) -> None:
        """Take captures with bodies of so many bytes, on open connections, too.

        Never fewer than before: when a limit is lowered, larger captures are still under way.
        """
        self.frame_limit = max(self.frame_limit, body_bytes + HEAD_BYTES, _COUNTERS_BYTES)
        for line in self.workers:
            line.reader.limit = self.frame_limit

    def line(self) -> asyncio.Protocol:
        """The protocol factory for `loop.create_unix_server`."""
        return _WorkerLine(self)

    def recorded(self, tokens: list[object]) -> None:
        """From any thread: these captures (by the token they came with) have been counted."""
        try:
            self._loop.call_soon_threadsafe(self._acknowledge, tokens)
        except RuntimeError:  # the loop has ended: so has the worker's interest
            return

    @staticmethod
    def _acknowledge(tokens: list[object]) -> None:
        lines = set()
        for token in tokens:
            if isinstance(token, _WorkerLine):
                token.captures += 1
                lines.add(token)
        for line in lines:
            line.acknowledge()


class _WorkerLine(asyncio.Protocol):
    """One worker's connection; it is also the token of its captures."""

    def __init__(self, server: ValveServer) -> None:
        self._server = server
        self.reader = FrameReader(server.frame_limit)
        self._transport: asyncio.Transport | None = None
        self._worker = ""
        self._snapshots = 0
        self.captures = 0

    def acknowledge(self) -> None:
        if self._transport is not None:
            self._transport.write(Receipt(self._server.life, self.captures, self._snapshots).packed())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.workers.add(self)
        self.acknowledge()

    def data_received(self, data: bytes) -> None:
        try:
            for kind, head, bodies in self.reader.feed(data):
                if kind == CAPTURE:
                    self._server.captured(capture_from(head, bodies), self)
                elif kind == STATS:
                    self._server.counted(self._worker, head)
                    self._snapshots += 1
                    self.acknowledge()
                elif kind == HELLO:
                    self._worker = str(head.get("worker", ""))[:64]
                else:
                    raise BadFrame(f"kind {kind}")
        except BadFrame as error:
            self._server.bad_frame(str(error))
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.workers.discard(self)
        self._server.left(self._worker)
