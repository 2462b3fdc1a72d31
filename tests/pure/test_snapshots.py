"""A worker brings a new monitor only what no monitor has had."""

from __future__ import annotations

from proxy.pure.snapshots import since
from proxy.pure.tally import Tally


def grow(tally: Tally, count: int) -> None:
    for _ in range(count):
        tally.request("r", "POST", 200, 0.001)
        tally.drop("valve_full")


def test_the_difference_of_two_snapshots_is_what_happened_between_them() -> None:
    tally = Tally()
    grow(tally, 3)
    base = tally.snapshot([("r", 5)])
    grow(tally, 2)
    tally.error("r", "dns")
    now = tally.snapshot([("r", 1)])
    grown = since(now, base)
    assert grown["requests"] == [["r", "POST", 200, 2]]
    assert grown["dropped"] == [["valve_full", 2]]
    assert grown["upstream_errors"] == [["r", "dns", 1]]
    assert grown["open_streams"] == [["r", 1]]
    ((route, counts, total),) = grown["overhead"]
    assert (route, sum(counts), round(total, 6)) == ("r", 2, 0.002)


def test_a_snapshot_is_not_changed_by_what_happens_after_it() -> None:
    tally = Tally()
    grow(tally, 1)
    base = tally.snapshot([])
    grow(tally, 1)
    assert sum(base["overhead"][0][1]) == 1


def test_without_a_base_everything_is_new() -> None:
    tally = Tally()
    grow(tally, 2)
    assert since(tally.snapshot([]), {}) == tally.snapshot([])
