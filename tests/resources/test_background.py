"""The scoring thread gives way, and starving is told from hanging."""

from __future__ import annotations

import os
import sys
import time
from threading import Event, Thread

import pytest

from proxy.resources.background import Progress, give_way

linux = pytest.mark.skipif(sys.platform != "linux", reason="SCHED_IDLE is Linux's")


@linux
def test_only_the_thread_that_asks_gives_way() -> None:
    policies = []

    def ask() -> None:
        give_way()
        policies.append(os.sched_getscheduler(0))

    thread = Thread(target=ask)
    thread.start()
    thread.join()
    assert policies == [os.SCHED_IDLE]
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_a_thread_that_waits_on_something_else_stalls_in_wall_time() -> None:
    gate, at_it = Event(), Event()

    def hang() -> None:
        progress.step()
        at_it.set()
        gate.wait(10)
        progress.rest()

    thread = Thread(target=hang)
    progress = Progress(thread)
    assert progress.stalled_s == 0
    thread.start()
    at_it.wait(10)
    first = progress.stalled_s
    time.sleep(0.05)
    assert progress.stalled_s >= first + 0.04
    gate.set()
    thread.join()
    assert progress.stalled_s == 0


def test_a_thread_that_gets_little_of_the_processor_does_not_stall() -> None:
    """It works a little and sleeps much, as a starved one seems to: CPU time moves, so it is alive."""
    done = Event()

    def starve() -> None:
        progress.step()
        while not done.wait(0.005):
            sum(range(2000))

    thread = Thread(target=starve)
    progress = Progress(thread)
    thread.start()
    stalls = []
    for _ in range(20):
        time.sleep(0.02)
        stalls.append(progress.stalled_s)
    done.set()
    thread.join()
    assert max(stalls) < 0.3  # of the 0.4 s that it has been at one step
