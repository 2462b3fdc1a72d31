"""The data side's numbers, gathered from the workers' snapshots into series that never go backwards.

A snapshot is cumulative since its worker's start. What it has more than that worker's last one is added to
the grand totals; a snapshot with less means that the worker began anew, and counts whole. The last snapshot
of a worker that went away is kept for a while: the same worker may come back and must not count twice.

Snapshots are JSON from another process: a malformed one is refused whole, with one log line a worker.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from proxy.words.buckets import OVERHEAD_BUCKETS
from proxy.words.errors import DROP_CAUSES, UNSCORED_CAUSES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client.metrics_core import Metric

    from proxy.resources.log import Logger

METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"}
)  # anyone can send any word as a method; the rest is `other`
REMEMBERED: Final = 1024  # snapshots of workers that went away
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,39}")
_BOUNDS: Final = (*(str(bound) for bound in OVERHEAD_BUCKETS), "+Inf")

Key = tuple[str, ...]


@dataclass(slots=True)
class _Totals:
    """Numbers by family and labels. `counters` holds every cumulative one, histogram parts included."""

    counters: dict[str, dict[Key, float]] = field(default_factory=dict)
    open_streams: dict[Key, float] = field(default_factory=dict)

    def add(self, family: str, key: Key, value: float) -> None:
        series = self.counters.setdefault(family, {})
        series[key] = series.get(key, 0) + value


class WorkerTotals:
    """A Prometheus collector for `refusal_proxy_*`. Unscored and dropped captures are handed on.

    A worker's id must be its own for as long as this process lives (its number and its start, say).
    """

    def __init__(
        self,
        log: Logger,
        unscored: Callable[[str, str, float], None],
        dropped: Callable[[str, float], None],
    ) -> None:
        self._log = log
        self._unscored = unscored
        self._dropped = dropped
        self._lock = Lock()
        self._totals = _Totals()
        self._last: OrderedDict[str, _Totals] = OrderedDict()
        self._gone: OrderedDict[str, _Totals] = OrderedDict()
        self._refused: set[str] = set()

    def update(self, worker_id: str, snapshot: Mapping[str, Any]) -> None:
        """Take a worker's newest snapshot. Never raises."""
        try:
            new = _read(snapshot)
        except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
            if worker_id not in self._refused and len(self._refused) < REMEMBERED:
                self._refused.add(worker_id)
                self._log.error("malformed worker snapshot ignored", worker=worker_id, error=str(error))
            return
        with self._lock:
            old = self._last.get(worker_id) or self._gone.pop(worker_id, None) or _Totals()
            deltas = _difference(new, old)
            self._last[worker_id] = new
            for family, key, value in deltas:
                self._totals.add(family, key, value)
        for family, key, value in deltas:
            if family == "unscored":
                self._unscored(key[0], key[1], value)
            elif family == "dropped":
                self._dropped(key[0], value)

    def forget(self, worker_id: str) -> None:
        """A worker's connection is gone: its streams no longer count as open, its totals stay."""
        with self._lock:
            if last := self._last.pop(worker_id, None):
                self._gone[worker_id] = last
                while len(self._gone) > REMEMBERED:
                    self._gone.popitem(last=False)

    def describe(self) -> Iterable[Metric]:
        """Names only, for the registry's check against duplicates."""
        return list(self._families(_Totals(), {}))

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            totals = _Totals({name: dict(series) for name, series in self._totals.counters.items()})
            open_streams: dict[Key, float] = {}
            for last in self._last.values():
                for key, value in last.open_streams.items():
                    open_streams[key] = open_streams.get(key, 0) + value
            # A route whose last stream ended with its worker stays at 0 instead of going stale.
            for gone in self._gone.values():
                for key in gone.open_streams:
                    open_streams.setdefault(key, 0)
        return list(self._families(totals, open_streams))

    @staticmethod
    def _families(totals: _Totals, open_streams: Mapping[Key, float]) -> Iterable[Metric]:
        for family, name, text, labels in (
            ("requests", "refusal_proxy_requests", "Requests that the proxy finished.", _REQUEST),
            (
                "upstream_errors",
                "refusal_proxy_upstream_errors",
                "Requests that failed between proxy and upstream, by cause.",
                ("route", "cause"),
            ),
            (
                "client_disconnects",
                "refusal_proxy_client_disconnects",
                "Clients that left before their response ended.",
                ("route",),
            ),
        ):
            counter = CounterMetricFamily(name, text, labels=labels)
            for key, value in sorted(totals.counters.get(family, {}).items()):
                counter.add_metric(key, value)
            yield counter
        streams = GaugeMetricFamily(
            "refusal_proxy_open_streams", "Responses now being passed on.", labels=("route",)
        )
        for key, value in sorted(open_streams.items()):
            streams.add_metric(key, value)
        yield streams
        yield _overhead(totals)


_REQUEST: Final = ("route", "method", "code")


def _overhead(totals: _Totals) -> Metric:
    family = HistogramMetricFamily(
        "refusal_proxy_overhead_seconds",
        "Time that the proxy itself added to a request before its first response byte.",
        labels=("route",),
    )
    counts = totals.counters.get("overhead_count", {})
    for (route,), total in sorted(totals.counters.get("overhead_sum", {}).items()):
        running, buckets = 0.0, []
        for bound in _BOUNDS:
            running += counts.get((route, bound), 0)
            buckets.append((bound, running))
        family.add_metric((route,), buckets, total)
    return family


def _read(snapshot: Mapping[str, Any]) -> _Totals:
    """Check a snapshot and put it into neutral form. Raises what `update` catches."""
    totals = _Totals()
    for route, method, code, count in snapshot.get("requests", ()):
        known = method if method in METHODS else "other"
        status = str(int(code)) if 100 <= int(code) <= 599 else "other"
        totals.add("requests", (_word(route), known, status), _count(count))
    for route, counts, total in snapshot.get("overhead", ()):
        for bound, count in zip(_BOUNDS, counts, strict=True):
            totals.add("overhead_count", (_word(route), bound), _count(count))
        totals.add("overhead_sum", (_word(route),), _count(total))
    for route, count in snapshot.get("open_streams", ()):
        totals.open_streams[(_word(route),)] = _count(count)
    for route, cause, count in snapshot.get("upstream_errors", ()):
        totals.add("upstream_errors", (_word(route), _word(cause)), _count(count))
    for route, count in snapshot.get("client_disconnects", ()):
        totals.add("client_disconnects", (_word(route),), _count(count))
    for route, cause, count in snapshot.get("unscored", ()):
        totals.add("unscored", (_word(route), _one_of(cause, UNSCORED_CAUSES)), _count(count))
    for cause, count in snapshot.get("dropped", ()):
        totals.add("dropped", (_one_of(cause, DROP_CAUSES),), _count(count))
    return totals


def _difference(new: _Totals, old: _Totals) -> list[tuple[str, Key, float]]:
    """What `new` has more than `old`; all of `new` where anything went down (a worker that began anew)."""
    if any(
        new.counters.get(family, {}).get(key, 0) < value
        for family, series in old.counters.items()
        for key, value in series.items()
    ):
        old = _Totals()
    return [
        (family, key, value - old.counters.get(family, {}).get(key, 0))
        for family, series in new.counters.items()
        for key, value in series.items()
    ]


def _word(value: object) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise ValueError("a label that is no short word")
    return value


def _one_of(value: object, words: tuple[str, ...]) -> str:
    if value not in words:
        raise ValueError("a cause that is not on its list")
    return str(value)


def _count(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**63:
        raise ValueError("a count that is no count")
    return value
