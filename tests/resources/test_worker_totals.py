"""The workers' numbers: never backwards, never twice."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from proxy.resources.log import configure
from proxy.resources.worker_totals import WorkerTotals
from proxy.words.buckets import OVERHEAD_BUCKETS
from proxy.words.config import Log

REQUESTS = "refusal_proxy_requests_total"


class Bench:
    def __init__(self) -> None:
        self.lines = io.StringIO()
        self.unscored: dict[tuple[str, str], float] = {}
        self.dropped: dict[str, float] = {}
        self.totals = WorkerTotals(configure(Log(), self.lines), self._unscored, self._dropped)
        self.registry = CollectorRegistry()
        self.registry.register(self.totals)

    def _unscored(self, route: str, cause: str, count: float) -> None:
        self.unscored[route, cause] = self.unscored.get((route, cause), 0) + count

    def _dropped(self, cause: str, count: float) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + count

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def requests(count: int) -> dict[str, Any]:
    return {"requests": [["default", "POST", 200, count]]}


def test_snapshots_become_series() -> None:
    bench = Bench()
    counts = [0] * len(OVERHEAD_BUCKETS) + [0]
    counts[0], counts[3], counts[-1] = 5, 2, 1
    bench.totals.update(
        "w1",
        {
            "requests": [["default", "POST", 200, 7], ["default", "BREW", 999, 1]],
            "overhead": [["default", counts, 0.5]],
            "open_streams": [["default", 3]],
            "upstream_errors": [["default", "connect", 2]],
            "client_disconnects": [["default", 1]],
            "unscored": [["default", "not_a_conversation", 4]],
            "dropped": [["valve_full", 6]],
        },
    )
    assert bench.value(REQUESTS, route="default", method="POST", code="200") == 7
    assert bench.value(REQUESTS, route="default", method="other", code="other") == 1
    assert bench.value("refusal_proxy_open_streams", route="default") == 3
    assert bench.value("refusal_proxy_upstream_errors_total", route="default", cause="connect") == 2
    assert bench.value("refusal_proxy_client_disconnects_total", route="default") == 1
    overhead = "refusal_proxy_overhead_seconds"
    assert bench.value(f"{overhead}_bucket", route="default", le="5e-05") == 5
    assert bench.value(f"{overhead}_bucket", route="default", le="0.001") == 7
    assert bench.value(f"{overhead}_bucket", route="default", le="+Inf") == 8
    assert bench.value(f"{overhead}_count", route="default") == 8
    assert bench.value(f"{overhead}_sum", route="default") == 0.5
    assert bench.unscored == {("default", "not_a_conversation"): 4}
    assert bench.dropped == {"valve_full": 6}


def test_a_worker_that_reconnects_goes_on_where_it_was() -> None:
    bench = Bench()
    bench.totals.update("w1", {**requests(5), "open_streams": [["default", 2]]})
    bench.totals.forget("w1")
    assert bench.value("refusal_proxy_open_streams", route="default") == 0
    bench.totals.update("w1", requests(8))
    assert bench.value(REQUESTS, route="default", method="POST", code="200") == 8


def test_a_new_monitor_takes_over_the_whole_count_of_a_worker() -> None:
    bench = Bench()
    bench.totals.update("w1", requests(1000))
    assert bench.value(REQUESTS, route="default", method="POST", code="200") == 1000


def test_a_worker_that_began_anew_under_its_old_name_adds_up() -> None:
    bench = Bench()
    bench.totals.update("w1", requests(10))
    bench.totals.update("w1", requests(3))
    assert bench.value(REQUESTS, route="default", method="POST", code="200") == 13


STEPS = st.lists(
    st.tuples(st.sampled_from(["count", "send", "forget", "restart"]), st.integers(0, 2), st.integers(0, 5)),
    max_size=80,
)


@given(STEPS)
def test_counters_never_go_backwards_and_end_at_the_truth(steps: list[tuple[str, int, int]]) -> None:
    """Workers count, send, lose their connection and are replaced (under a new name) in any order."""
    bench = Bench()
    counts, lives, sent, truth, shown = [0, 0, 0], [0, 0, 0], [0, 0, 0], 0.0, 0.0
    for what, worker, amount in steps:
        name = f"w{worker}.{lives[worker]}"
        if what == "count":
            counts[worker] += amount
        elif what == "send":
            bench.totals.update(name, requests(counts[worker]))
            truth += counts[worker] - sent[worker]
            sent[worker] = counts[worker]
        elif what == "forget":
            bench.totals.forget(name)
        else:
            bench.totals.forget(name)
            counts[worker] = sent[worker] = 0
            lives[worker] += 1
        now = bench.value(REQUESTS, route="default", method="POST", code="200") or 0.0
        assert now >= shown
        assert now == truth
        shown = now


@pytest.mark.parametrize(
    "snapshot",
    [
        None,
        [],
        "text",
        {"requests": 5},
        {"requests": [["default", "POST", 200]]},
        {"requests": [["default", "POST", "x", 1]]},
        {"requests": [["default", "POST", float("inf"), 1]]},
        {"requests": [["default", ["POST"], 200, 1]]},
        {"requests": [["Not A Route", "POST", 200, 1]]},
        {"requests": [["default", "POST", 200, -1]]},
        {"requests": [["default", "POST", 200, True]]},
        {"requests": [["default", "POST", 200, float("nan")]]},
        {"requests": [["default", "POST", 200, 10**400]]},
        {"overhead": [["default", [1, 2], 0.5]]},
        {"unscored": [["default", "a free word", 1]]},
        {"dropped": [["a free word", 1]]},
        {"requests": [["default", "POST", 200, 1]], "dropped": [["a free word", 1]]},
    ],
)
def test_a_malformed_snapshot_is_refused_whole_with_one_line(snapshot: Any) -> None:
    bench = Bench()
    bench.totals.update("w1", requests(5))
    for _ in range(3):
        bench.totals.update("w1", snapshot)
    assert bench.value(REQUESTS, route="default", method="POST", code="200") == 5
    assert bench.dropped == {}
    assert len(bench.lines.getvalue().splitlines()) == 1
    bench.totals.update("w1", requests(6))
    assert bench.value(REQUESTS, route="default", method="POST", code="200") == 6
