"""What a worker's counters have grown by since a monitor last had them.

A monitor that dies takes its totals with it, and its successor starts at zero, as Prometheus expects of a
counter. A worker that outlived it must then bring only what no monitor has had yet: brought along whole, its
history would be counted as new traffic a second time.
"""

from __future__ import annotations

from typing import Any

Snapshot = dict[str, Any]


def since(now: Snapshot, base: Snapshot) -> Snapshot:
    """`now` less `base`, both as `Tally.snapshot` gives them. `open_streams` is a gauge and stays."""
    grown: Snapshot = {}
    for family, rows in now.items():
        before = base.get(family, ())
        if family == "open_streams" or not before:
            grown[family] = rows
        elif family == "overhead":
            grown[family] = _histograms(rows, before)
        else:
            known = {tuple(row[:-1]): row[-1] for row in before}
            grown[family] = [[*row[:-1], row[-1] - known.get(tuple(row[:-1]), 0)] for row in rows]
    return grown


def _histograms(rows: list[list[Any]], before: list[list[Any]]) -> list[list[Any]]:
    """Rows of [route, counts by bucket, sum]."""
    known = {route: (counts, total) for route, counts, total in before}
    grown = []
    for route, counts, total in rows:
        old_counts, old_total = known.get(route, ([0] * len(counts), 0.0))
        grown.append(
            [route, [new - old for new, old in zip(counts, old_counts, strict=True)], total - old_total]
        )
    return grown
