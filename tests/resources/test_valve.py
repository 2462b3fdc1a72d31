"""The valve: bounded in bytes, never waited for, every capture accounted for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from proxy.pure.frames import CAPTURE, Receipt, capture_frame, frame
from proxy.pure.tally import Tally
from proxy.resources.valve import ValveClient, ValveServer
from proxy.words.exchange import BoundedCopy, Capture


def capture(name: str, size: int = 100) -> Capture:
    return Capture(name, "r", "openai_chat", "/", 200, response=BoundedCopy(b"x" * size, b"", size))


class MonitorEnd:
    """A monitor that records what it gets when the test lets it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.captures: list[Capture] = []
        self.tokens: list[object] = []
        self.snapshots: list[tuple[str, dict[str, Any]]] = []
        self.left: list[str] = []
        self.bad: list[str] = []
        self.valve: ValveServer
        self.server: asyncio.AbstractServer

    async def start(self, body_bytes: int = 1 << 20) -> None:
        self.valve = ValveServer(
            body_bytes=body_bytes,
            captured=self._captured,
            counted=lambda worker, snapshot: self.snapshots.append((worker, snapshot)),
            left=self.left.append,
            bad_frame=self.bad.append,
        )
        self.path.unlink(missing_ok=True)
        loop = asyncio.get_running_loop()
        self.server = await loop.create_unix_server(self.valve.line, str(self.path))

    def _captured(self, one: Capture, token: object) -> None:
        self.captures.append(one)
        self.tokens.append(token)

    def drops(self) -> list[tuple[str, list[list[object]]]]:
        return [(worker, snapshot["dropped"]) for worker, snapshot in self.snapshots]

    def record_all(self) -> None:
        tokens, self.tokens = self.tokens, []
        self.valve.recorded(tokens)

    def die(self) -> None:
        self.server.close()
        for line in tuple(self.valve.workers):
            assert line._transport is not None
            line._transport.abort()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.005)


def client(path: Path, tally: Tally, limit: int = 1 << 20) -> ValveClient:
    return ValveClient(path, "worker-0-1", limit, tally, Random(1))


async def test_captures_arrive_whole_and_are_acknowledged(tmp_path: Path) -> None:
    monitor, tally = MonitorEnd(tmp_path / "v"), Tally()
    await monitor.start()
    valve = client(monitor.path, tally)
    valve.start(lambda: tally.snapshot([]))
    sent = [capture(f"c{i}", size=i * 100) for i in range(50)]
    for one in sent:
        valve.offer(one)
    await until(lambda: len(monitor.captures) == 50)
    assert monitor.captures == sent
    assert valve.unrecorded == 50
    monitor.record_all()
    await until(lambda: valve.unrecorded == 0)
    assert tally.dropped == {}
    valve.close()
    monitor.die()


async def test_without_a_monitor_captures_wait_within_the_bound_and_the_rest_is_counted(
    tmp_path: Path,
) -> None:
    tally = Tally()
    valve = client(tmp_path / "nobody", tally, limit=100_000)
    valve.start(lambda: tally.snapshot([]))
    for i in range(100):
        valve.offer(capture(f"c{i}", 5_000))
    assert valve._waiting.bytes <= 100_000
    assert tally.dropped == {"valve_full": 100 - len(valve._waiting)}
    valve.close()


async def test_a_capture_larger_than_the_valve_is_dropped_alone(tmp_path: Path) -> None:
    tally = Tally()
    valve = client(tmp_path / "nobody", tally, limit=100_000)
    valve.offer(capture("small", 10))
    valve.offer(capture("huge", 200_000))
    assert tally.dropped == {"too_large": 1}
    assert len(valve._waiting) == 1
    valve.close()


async def test_what_a_dying_monitor_had_not_recorded_is_counted_and_the_rest_reaches_the_next(
    tmp_path: Path,
) -> None:
    first, tally = MonitorEnd(tmp_path / "v"), Tally()
    await first.start()
    valve = client(first.path, tally)
    valve.start(lambda: tally.snapshot([]))
    for i in range(10):
        valve.offer(capture(f"a{i}"))
    await until(lambda: len(first.captures) == 10)
    first.tokens = first.tokens[:4]
    first.record_all()
    await until(lambda: valve.unrecorded == 6)
    first.die()
    await until(lambda: tally.dropped == {"monitor_lost": 6})
    for i in range(3):
        valve.offer(capture(f"b{i}"))
    second = MonitorEnd(tmp_path / "v")
    await second.start()
    await until(lambda: [one.id for one in second.captures] == ["b0", "b1", "b2"])
    assert tally.dropped == {"monitor_lost": 6}
    valve.close()
    second.die()


async def test_a_monitor_that_does_not_read_costs_bounded_memory_and_no_time(tmp_path: Path) -> None:
    """The kernel's buffer, one batch and the outbox fill; then captures are dropped, offers still return."""
    path, tally = tmp_path / "v", Tally()
    stuck = asyncio.Event()

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(Receipt(1, 0, 0).packed())
        await stuck.wait()
        writer.close()

    server = await asyncio.start_unix_server(never_read, str(path))
    valve = client(path, tally, limit=1_000_000)
    valve.start(lambda: tally.snapshot([]))
    await until(lambda: valve.connected)
    for i in range(200):
        valve.offer(capture(f"c{i}", 50_000))
        valve.send_stats()
        await asyncio.sleep(0)
    await until(lambda: valve._paused)
    for i in range(200):
        valve.offer(capture(f"d{i}", 50_000))
        valve.send_stats()
    assert valve._transport is not None
    assert valve._waiting.bytes <= 1_000_000
    assert valve._transport.get_write_buffer_size() < 1_000_000
    assert tally.dropped["valve_full"] > 200
    stuck.set()
    valve.close()
    server.close()


async def test_counters_come_with_the_workers_name_and_its_leaving_is_told(tmp_path: Path) -> None:
    monitor, tally = MonitorEnd(tmp_path / "v"), Tally()
    await monitor.start()
    valve = client(monitor.path, tally)
    valve.start(lambda: tally.snapshot([]))
    await until(lambda: len(monitor.snapshots) == 1)
    tally.drop("valve_full", 2)
    valve.send_stats()
    await until(lambda: monitor.drops() == [("worker-0-1", []), ("worker-0-1", [["valve_full", 2]])])
    valve.close()
    await until(lambda: monitor.left == ["worker-0-1"])
    monitor.die()


async def test_a_new_monitor_gets_only_the_counts_that_no_monitor_had(tmp_path: Path) -> None:
    first, tally = MonitorEnd(tmp_path / "v"), Tally()
    await first.start()
    valve = client(first.path, tally)
    tally.drop("valve_full", 5)
    valve.start(lambda: tally.snapshot([]))
    await until(lambda: first.drops() == [("worker-0-1", [["valve_full", 5]])])
    await until(lambda: not valve._undelivered)
    first.die()
    tally.drop("valve_full", 2)
    second = MonitorEnd(tmp_path / "v")
    await second.start()
    await until(lambda: second.drops() == [("worker-0-1", [["valve_full", 2]])])
    tally.drop("valve_full", 1)
    valve.send_stats()
    await until(lambda: second.drops()[1:] == [("worker-0-1", [["valve_full", 3]])])
    valve.close()
    second.die()


async def test_counts_sent_to_a_monitor_that_died_unread_are_not_lost(tmp_path: Path) -> None:
    path, tally = tmp_path / "v", Tally()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(Receipt(1, 0, 0).packed())
        await reader.readuntil(b"valve_full")  # reads, but never gives a receipt
        writer.close()

    server = await asyncio.start_unix_server(deaf, str(path))
    tally.drop("valve_full", 4)
    valve = client(path, tally)
    valve.start(lambda: tally.snapshot([]))
    await until(lambda: valve._life == 1 and not valve.connected)
    server.close()
    second = MonitorEnd(path)
    await second.start()
    await until(lambda: second.drops()[:1] == [("worker-0-1", [["valve_full", 4]])])
    valve.close()
    second.die()


async def test_a_worker_that_reconnects_to_the_same_monitor_goes_on_counting(tmp_path: Path) -> None:
    monitor, tally = MonitorEnd(tmp_path / "v"), Tally()
    await monitor.start()
    valve = client(monitor.path, tally)
    tally.drop("valve_full", 5)
    valve.start(lambda: tally.snapshot([]))
    await until(lambda: len(monitor.snapshots) == 1 and not valve._undelivered)
    (line,) = monitor.valve.workers
    assert line._transport is not None
    line._transport.abort()
    await until(lambda: monitor.drops()[1:] == [("worker-0-1", [["valve_full", 5]])])
    valve.close()
    monitor.die()


async def test_bytes_that_are_no_frame_end_that_connection_only(tmp_path: Path) -> None:
    monitor, tally = MonitorEnd(tmp_path / "v"), Tally()
    await monitor.start(body_bytes=10_000)
    valve = client(monitor.path, tally)
    valve.start(lambda: tally.snapshot([]))
    await until(lambda: valve.connected)
    garbage = [
        b"\xff" * 64,
        frame(99, {}),
        frame(CAPTURE, {"id": 1}),
        frame(CAPTURE, {"sizes": [9], "totals": []}),
    ]
    garbage.append(capture_frame(capture("x", 2_000_000)))  # well-formed, but over the limit
    for number, text in enumerate(garbage, 1):
        reader, writer = await asyncio.open_unix_connection(str(monitor.path))
        writer.write(text)
        with contextlib.suppress(ConnectionError):
            assert len(await asyncio.wait_for(reader.read(), 5)) == len(Receipt(0, 0, 0).packed())
        await until(lambda seen=number: len(monitor.bad) == seen)  # type: ignore[misc]
        writer.close()
    valve.offer(capture("still here"))
    await until(lambda: [one.id for one in monitor.captures] == ["still here"])
    valve.close()
    monitor.die()


async def test_a_changed_limit_holds_on_open_connections_and_never_shrinks(tmp_path: Path) -> None:
    monitor, tally = MonitorEnd(tmp_path / "v"), Tally()
    await monitor.start(body_bytes=10_000)
    valve = client(monitor.path, tally, limit=8 << 20)
    valve.start(lambda: tally.snapshot([]))
    await until(lambda: len(monitor.snapshots) == 1)
    monitor.valve.admit(3 << 20)
    valve.offer(capture("larger than before", 3 << 20))
    await until(lambda: len(monitor.captures) == 1)
    monitor.valve.admit(10_000)
    valve.offer(capture("copied under the old limit", 3 << 20))
    await until(lambda: len(monitor.captures) == 2)
    (line,) = monitor.valve.workers
    assert line._transport is not None
    line._transport.abort()
    await until(lambda: len(monitor.snapshots) == 2)
    valve.offer(capture("on a new connection", 3 << 20))
    await until(lambda: len(monitor.captures) == 3)
    assert monitor.bad == []
    valve.close()
    monitor.die()
