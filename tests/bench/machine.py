"""The machine under the benchmark: processes on chosen cores, and who used how much of it. Linux only.

CPU comes from the scheduler's own accounting (`schedstat`, nanoseconds), not from ticks. Each started process
leads a process group, so that it can be ended with all that it started, but stays in our session: with
autogroups, priorities count only within a session, and the monitor's low one is a part of what is measured.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any, Final

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_STOP_S: Final = 2.0


class Processes:
    """Everything the benchmark started and has not ended yet."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(
        self,
        command: Iterable[str | Path],
        core: int,
        *,
        nice: int = 0,
        output: IO[bytes] | int = subprocess.DEVNULL,
        errors: IO[bytes] | int = subprocess.DEVNULL,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a process that stays on one core. A `nice` that is not allowed is left out."""
        ours = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {core})  # inherited, from the first instruction on
        try:
            process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                text=True,
                env={**os.environ, **(environment or {})},
                process_group=0,
            )
        finally:
            os.sched_setaffinity(0, ours)
        self._running.append(process)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, nice)
        return process

    def stop(self, process: subprocess.Popen[str]) -> None:
        """Ask, ask again (our supervisor takes that for: at once), then end what is left of its group."""
        for _ in range(2):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                process.terminate()
                process.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_STOP_S)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        if process in self._running:
            self._running.remove(process)

    def stop_all(self, *, keep: subprocess.Popen[str] | None = None) -> None:
        for process in reversed(tuple(self._running)):
            if process is not keep:
                self.stop(process)


def pin(pid: int, core: int) -> None:
    """Move a process with all its threads to one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


def children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def tree(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in tree(child))]


def child_that_runs(pid: int, module: str) -> int:
    """The child whose command line names a module; raises LookupError."""
    for child in children(pid):
        with contextlib.suppress(OSError):
            if module.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                return child
    raise LookupError(f"no child of {pid} runs {module}")


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds of these processes so far, all threads, without their children."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def memory_kib(pid: int, kind: str) -> int:
    """`Rss` (every page it maps) or `Pss` (shared pages divided among those who share them)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1])
    raise LookupError(kind)


def busy_s(cores: Iterable[int]) -> float:
    """Seconds that these cores have worked, for whomever."""
    names = {f"cpu{core}" for core in cores}
    total = 0.0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            ticks = list(map(int, fields[:8]))  # guest time is in user time already
            total += (sum(ticks) - ticks[3] - ticks[4]) / _TICKS
    return total


def settle(pids: Iterable[int], within_s: float) -> None:
    """Let processes work off what the last test left them with."""
    watched, end = list(pids), time.monotonic() + within_s
    while time.monotonic() < end:
        before = cpu_s(watched)
        time.sleep(0.2)
        if cpu_s(watched) - before < 0.03:
            return


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def facts() -> dict[str, Any]:
    """What a reader must know of the machine."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {
        "cpu": models[0].partition(":")[2].strip() if models else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": os.uname().release,
        "load_average": round(os.getloadavg()[0], 2),
    }
