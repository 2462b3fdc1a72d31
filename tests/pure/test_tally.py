"""What a worker counts: closed keys, cumulative numbers, a snapshot that JSON can carry."""

from __future__ import annotations

import orjson

from proxy.pure.tally import NO_ROUTE, Tally
from proxy.words.buckets import OVERHEAD_BUCKETS


def test_requests_are_counted_by_route_method_and_status() -> None:
    tally = Tally()
    tally.request("a", "POST", 200, 0.0)
    tally.request("a", "POST", 200, 1e9)
    tally.request(NO_ROUTE, "BREW", 418, 0.0)
    tally.request(NO_ROUTE, "x" * 1000, 418, 0.0)
    snapshot = tally.snapshot([("a", 3)])
    assert snapshot["requests"] == [["a", "POST", 200, 2], ["none", "other", 418, 2]]
    assert snapshot["open_streams"] == [["a", 3]]


def test_overhead_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    tally = Tally()
    for bound in OVERHEAD_BUCKETS:
        tally.request("a", "GET", 200, bound)
    tally.request("a", "GET", 200, OVERHEAD_BUCKETS[-1] * 2)
    ((route, counts, total),) = tally.snapshot([])["overhead"]
    assert route == "a"
    assert counts == [1] * (len(OVERHEAD_BUCKETS) + 1)
    assert total == sum(OVERHEAD_BUCKETS) + OVERHEAD_BUCKETS[-1] * 2


def test_a_snapshot_is_cumulative_and_fit_for_json() -> None:
    tally = Tally()
    for _ in range(2):
        tally.error("a", "dns")
        tally.not_scored("a", "error")
        tally.disconnect("a")
        tally.drop("valve_full", 3)
    snapshot = tally.snapshot([])
    assert snapshot["upstream_errors"] == [["a", "dns", 2]]
    assert snapshot["unscored"] == [["a", "error", 2]]
    assert snapshot["client_disconnects"] == [["a", 2]]
    assert snapshot["dropped"] == [["valve_full", 6]]
    assert orjson.loads(orjson.dumps(snapshot)) == snapshot
