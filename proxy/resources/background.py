"""Being last in line: the scoring thread's own priority, and telling starving from hanging.

Traffic goes first also on a machine with one core. A lower nice value is not enough for that: the scheduler
lets a nice thread finish its slice of some milliseconds before a woken worker gets the core. SCHED_IDLE
yields at once, and runs on whatever is left. A thread that gets little is not a hung one, so progress is
watched in CPU time as well as in wall time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from threading import Thread


def give_way() -> None:
    """Make the calling thread, and those it starts, run only when nothing else wants to. Linux alone."""
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # 0: this thread; lowering needs no right


@dataclass(frozen=True, slots=True)
class _Step:
    """When a step ended: seconds of wall time, and of the thread's CPU time."""

    wall: float
    cpu: float


class Progress:
    """How long a thread has been at its present step. `step` and `rest` are called by that thread alone."""

    def __init__(self, thread: Thread) -> None:
        self._thread = thread
        self._last: _Step | None = None
        self._seen = _Step(0.0, -1.0)  # the CPU time last read from outside, and when it was first that

    def step(self) -> None:
        """A step has ended, or the first one begins."""
        self._last = _Step(time.monotonic(), time.thread_time())

    def rest(self) -> None:
        """There is nothing to do: no stall, however long."""
        self._last = None

    @property
    def stalled_s(self) -> float:
        """Seconds without progress: of CPU spent on one step, or of wall time without any CPU; resting: 0."""
        last, now = self._last, time.monotonic()
        if last is None:
            return 0.0
        wall, cpu = now - last.wall, self._cpu()
        if cpu is None:
            return wall
        if cpu != self._seen.cpu:
            self._seen = _Step(now, cpu)
        return min(wall, max(now - self._seen.wall, cpu - last.cpu))

    def _cpu(self) -> float | None:
        """The thread's CPU time, or None where the system does not tell."""
        if self._thread.ident is None or not hasattr(time, "pthread_getcpuclockid"):
            return None
        try:
            return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))
        except OSError:  # it has just ended
            return None
