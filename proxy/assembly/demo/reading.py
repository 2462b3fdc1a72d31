"""From the text of /metrics to the numbers that people look at. Pure: no I/O, no clock.

Everything on the demo's table comes from here, so it shows what Prometheus would see and nothing that only
the demo knows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from proxy.words.verdict import REFUSALS

FEW: Final = 30  # below this many, a rate is a rumour
_Z95: Final = 1.959964
_REFUSED: Final = frozenset[str](REFUSALS)
_CLASS_OF: Final[dict[str, frozenset[str]]] = {
    "benign": frozenset({"benign"}),
    "sensitive": frozenset({"sensitive"}),
    "harmless": frozenset({"benign", "sensitive"}),
}


def wilson(hits: float, total: float) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927); (0, 1) where there is nothing to go by.

    Unlike the normal interval it is sane for few samples and for shares near 0 and 1.
    """
    if total <= 0:
        return 0.0, 1.0
    share = hits / total
    z2 = _Z95 * _Z95 / total
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z95 / (1 + z2) * math.sqrt(share * (1 - share) / total + z2 / (4 * total))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    # Exact ends: rounding must not turn "none seen" into a lower bound of 1e-17.
    return 0.0 if hits <= 0 else low, 1.0 if hits >= total else high


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with the counts behind it."""

    hits: int
    total: int

    @property
    def share(self) -> float:
        return self.hits / self.total if self.total else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.hits, self.total)

    @property
    def few(self) -> bool:
        return self.total < FEW


@dataclass(frozen=True, slots=True)
class Kind:
    """The labels of one series of `refusal_exchanges_total` that the table asks for."""

    model: str
    topic: str
    prompt_class: str
    outcome: str


@dataclass(slots=True)
class Reading:
    """One look at /metrics."""

    exchanges: Counter[Kind] = field(default_factory=Counter)
    unscored: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    system_prompts: Counter[str] = field(default_factory=Counter)
    classifier_up: bool = False
    classifier: str = ""
    lag_s: float = 0.0
    started_at: float = 0.0

    @property
    def requests(self) -> int:
        return self.statuses.total()

    @property
    def scored(self) -> int:
        return self.exchanges.total()

    @property
    def accounted(self) -> int:
        return self.scored + self.unscored.total() + self.dropped.total()

    def count(self, wanted: Callable[[Kind], bool]) -> int:
        return sum(number for kind, number in self.exchanges.items() if wanted(kind))

    def outcome(self, outcome: str) -> int:
        return self.count(lambda kind: kind.outcome == outcome)

    def refused(self, *, topic: str) -> int:
        return self.count(lambda kind: kind.topic == topic and kind.outcome in _REFUSED)

    def rate(self, prompts: str = "harmless", *, model: str = "", topic: str = "") -> Rate:
        """How often prompts of a kind (`benign`, `sensitive`, `harmless`: both) were refused."""
        classes = _CLASS_OF[prompts]
        chosen = {
            kind: number
            for kind, number in self.exchanges.items()
            if kind.prompt_class in classes and model in ("", kind.model) and topic in ("", kind.topic)
        }
        hits = sum(number for kind, number in chosen.items() if kind.outcome in _REFUSED)
        return Rate(hits, sum(chosen.values()))

    def topics(self) -> list[str]:
        """Those that were seen, most exchanges first."""
        seen: Counter[str] = Counter()
        for kind, number in self.exchanges.items():
            seen[kind.topic] += number
        return [topic for topic, number in seen.most_common() if number]

    def models(self) -> list[str]:
        return sorted({kind.model for kind, number in self.exchanges.items() if number})


def read(text: str) -> Reading:
    """Parse Prometheus' text format. Raises ValueError where it is none."""
    reading = Reading()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            _take(reading, sample.name, sample.labels, sample.value)
    return reading


def _take(reading: Reading, name: str, labels: dict[str, str], value: float) -> None:
    if name == "refusal_exchanges_total":
        kind = Kind(labels["model"], labels["topic"], labels["prompt_class"], labels["outcome"])
        reading.exchanges[kind] += int(value)
    elif name == "refusal_unscored_total":
        reading.unscored[labels["cause"]] += int(value)
    elif name == "refusal_captures_dropped_total":
        reading.dropped[labels["cause"]] += int(value)
    elif name == "refusal_proxy_requests_total":
        reading.statuses[labels["code"]] += int(value)
    elif name == "refusal_system_prompt_exchanges_total":
        reading.system_prompts[labels["system_prompt"]] += int(value)
    elif name == "refusal_classifier_up":
        reading.classifier_up = bool(value)
    elif name == "refusal_classifier_info":
        reading.classifier = labels.get("version", "")
    elif name == "refusal_scored_lag_seconds":
        reading.lag_s = value
    elif name == "process_start_time_seconds":
        reading.started_at = value
