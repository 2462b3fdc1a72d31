"""What one worker counts. Cumulative since its start, except where a gauge says what is open now.

Plain dictionaries of closed keys: routes come from the configuration, methods and causes from closed lists.
`snapshot` is what the monitor gets; it knows how to add the workers up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any, Final

from proxy.words.buckets import OVERHEAD_BUCKETS

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
NO_ROUTE: Final = "none"


class Tally:
    """Counters of the data side, as cheap as they get."""

    __slots__ = ("_overhead", "_overhead_sum", "disconnects", "dropped", "errors", "requests", "unscored")

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], int] = {}
        self.errors: dict[tuple[str, str], int] = {}
        self.unscored: dict[tuple[str, str], int] = {}
        self.disconnects: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self._overhead: dict[str, list[int]] = {}
        self._overhead_sum: dict[str, float] = {}

    def request(self, route: str, method: str, status: int, overhead_s: float) -> None:
        """One request that has ended. `status` is what the client got; 499 where it left before a head."""
        key = (route, method if method in METHODS else "other", status)
        self.requests[key] = self.requests.get(key, 0) + 1
        buckets = self._overhead.get(route)
        if buckets is None:
            buckets = self._overhead[route] = [0] * (len(OVERHEAD_BUCKETS) + 1)
            self._overhead_sum[route] = 0.0
        buckets[bisect_left(OVERHEAD_BUCKETS, overhead_s)] += 1
        self._overhead_sum[route] += overhead_s

    def error(self, route: str, cause: str) -> None:
        self.errors[route, cause] = self.errors.get((route, cause), 0) + 1

    def not_scored(self, route: str, cause: str) -> None:
        self.unscored[route, cause] = self.unscored.get((route, cause), 0) + 1

    def disconnect(self, route: str) -> None:
        self.disconnects[route] = self.disconnects.get(route, 0) + 1

    def drop(self, cause: str, count: int = 1) -> None:
        if count:
            self.dropped[cause] = self.dropped.get(cause, 0) + count

    def snapshot(self, open_streams: Iterable[tuple[str, int]]) -> dict[str, Any]:
        return {
            "requests": [[*key, n] for key, n in self.requests.items()],
            "overhead": [
                [route, list(counts), self._overhead_sum[route]] for route, counts in self._overhead.items()
            ],
            "open_streams": [list(pair) for pair in open_streams],
            "upstream_errors": [[*key, n] for key, n in self.errors.items()],
            "client_disconnects": [[route, n] for route, n in self.disconnects.items()],
            "unscored": [[*key, n] for key, n in self.unscored.items()],
            "dropped": [[cause, n] for cause, n in self.dropped.items()],
        }
