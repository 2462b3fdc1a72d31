"""Everything that /metrics shows, in one registry that is passed in. DESIGN.md §6 fixes the names.

Invariant: every label value is on a closed list, or comes from the configuration, or went through
`proxy.pure.labels`, which are bounded. Nothing else may reach `.labels(…)`.

Counters, not rates. Children of closed lists exist from the start at 0, so that `rate()` sees their first
increment. One thread writes (the scoring thread, and the event loop for drops), any may read.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import generate_latest as text_format
from prometheus_client.openmetrics.exposition import generate_latest as open_format

from proxy.pure.labels import UNKNOWN, ModelNames, SystemPrompts
from proxy.resources.worker_totals import WorkerTotals
from proxy.words.errors import DROP_CAUSES, UNSCORED_CAUSES

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
    from prometheus_client.samples import Sample

    from proxy.resources.log import Logger
    from proxy.words.config import Config
    from proxy.words.errors import DropCause, UnscoredCause
    from proxy.words.exchange import Capture, Exchange
    from proxy.words.verdict import Verdict

# OpenTelemetry's GenAI conventions give these bounds for seconds of a request, of a first token, and tokens.
DURATION_BUCKETS: Final = (
    0.01,
    0.02,
    0.04,
    0.08,
    0.16,
    0.32,
    0.64,
    1.28,
    2.56,
    5.12,
    10.24,
    20.48,
    40.96,
    81.92,
)
FIRST_TOKEN_BUCKETS: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
TOKEN_BUCKETS: Final = tuple(4**power for power in range(14))
WORD_BUCKETS: Final = (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
SCORING_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

GEN_AI: Final = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
)
_EXEMPLAR_ID: Final = 100  # characters; OpenMetrics allows 128 for an exemplar's names and values together


@dataclass(frozen=True, slots=True)
class Names:
    """The bounded label values of one exchange."""

    model: str
    request_model: str
    system_prompt: str


@dataclass(frozen=True, slots=True)
class Queue:
    """What the gauges ask for at scrape time."""

    captures: Callable[[], float]
    bytes: Callable[[], float]
    lag_seconds: Callable[[], float]


class Metrics:
    """The families, and what an observation does to them."""

    def __init__(self, registry: CollectorRegistry, config: Config, log: Logger, version: str) -> None:
        self.registry = registry
        self.models = ModelNames()
        self.system_prompts = SystemPrompts()
        self._families(registry)
        self.workers = WorkerTotals(
            log,
            unscored=lambda route, cause, count: self._unscored.labels(route, cause).inc(count),
            dropped=lambda cause, count: self._dropped.labels(cause).inc(count),
        )
        registry.register(self.workers)
        ProcessCollector(registry=registry)
        build = Info("refusal_proxy_build", "The running version.", registry=registry)
        build.info({"version": version, "python": platform.python_version()})
        for drop in DROP_CAUSES:
            self._dropped.labels(drop)
        self.configure(config)
        self.classifier("loading", "")

    def _families(self, registry: CollectorRegistry) -> None:
        self._exchanges = Counter(
            "refusal_exchanges",
            "Scored exchanges.",
            ("route", "model", "topic", "prompt_class", "outcome", "origin"),
            registry=registry,
        )
        self._refusals = Counter(
            "refusal_refusals",
            "Exchanges that the model refused in part or in full.",
            ("route", "model", "topic", "reason", "source", "origin"),
            registry=registry,
        )
        expected = ("route", "model", "topic", "origin")
        self._expected_refusals = Counter(
            "refusal_expected_refusals",
            "Sum of the calibrated probabilities of a refusal.",
            expected,
            registry=registry,
        )
        self._expected_false = Counter(
            "refusal_expected_false_refusals",
            "Sum of the calibrated probabilities of a refusal of a benign prompt.",
            expected,
            registry=registry,
        )
        self._by_system_prompt = Counter(
            "refusal_system_prompt_exchanges",
            "Scored exchanges by version of the system prompt.",
            ("route", "system_prompt", "outcome", "prompt_class"),
            registry=registry,
        )
        self._unscored = Counter(
            "refusal_unscored",
            "Exchanges that got no verdict, by cause.",
            ("route", "cause"),
            registry=registry,
        )
        self._dropped = Counter(
            "refusal_captures_dropped",
            "Captures lost before scoring, by cause.",
            ("cause",),
            registry=registry,
        )
        self._words = Histogram(
            "refusal_response_words",
            "Words of response text, as separated by white space.",
            ("origin", "outcome"),
            buckets=WORD_BUCKETS,
            registry=registry,
        )
        self._scoring = Histogram(
            "refusal_scoring_seconds",
            "Time to parse, score and record one batch of captures.",
            buckets=SCORING_BUCKETS,
            registry=registry,
        )
        self._classifier = Info("refusal_classifier", "The classifier in use.", registry=registry)
        self._classifier_up = Gauge(
            "refusal_classifier_up", "1 while a classifier is loaded, else 0.", registry=registry
        )
        self._queue = (
            Gauge("refusal_queue_captures", "Captures waiting to be scored.", registry=registry),
            Gauge("refusal_queue_bytes", "Bytes of the captures waiting to be scored.", registry=registry),
            Gauge(
                "refusal_scored_lag_seconds",
                "How far scoring is behind: the newest scored capture's, or the oldest waiting one's.",
                registry=registry,
            ),
        )
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from a request's arrival to the end of its response.",
            (*GEN_AI, "error_type"),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self._first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time from a request's arrival to the first byte of its streamed response.",
            GEN_AI,
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens as the provider counted them.",
            (*GEN_AI, "gen_ai_token_type"),
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )

    def configure(self, config: Config) -> None:
        """Take limits, names and routes from a new configuration; no series is lost."""
        self.models.configure(config.labels.models, config.limits.models)
        self.system_prompts.configure(config.labels.system_prompts, config.limits.system_prompts)
        for route in config.all_routes:
            for cause in UNSCORED_CAUSES:
                self._unscored.labels(route.name, cause)

    def watch(self, queue: Queue) -> None:
        """Ask the queue at every scrape."""
        for gauge, function in zip(
            self._queue, (queue.captures, queue.bytes, queue.lag_seconds), strict=True
        ):
            gauge.set_function(function)

    def classifier(self, state: str, version: str) -> None:
        self._classifier_up.set(state == "ready")
        self._classifier.info({"version": version, "state": state})

    def names(self, capture: Capture, exchange: Exchange) -> Names:
        """Bound the free names of an exchange."""
        admit = capture.status < 400
        return Names(
            model=self.models.label(exchange.model, admit=admit),
            request_model=self.models.label(exchange.request_model, admit=admit),
            system_prompt=self.system_prompts.label(exchange.system_prompt, admit=admit),
        )

    def scored(self, capture: Capture, exchange: Exchange, verdict: Verdict, names: Names) -> None:
        """Count one exchange and its verdict."""
        route, origin = capture.route, capture.origin
        sample = _exemplar(capture)
        remarkable = sample if verdict.outcome != "answer" else None
        self._exchanges.labels(
            route, names.model, verdict.topic, verdict.prompt_class, verdict.outcome, origin
        ).inc(exemplar=remarkable)
        self._by_system_prompt.labels(route, names.system_prompt, verdict.outcome, verdict.prompt_class).inc()
        if verdict.refused:
            self._refusals.labels(
                route, names.model, verdict.topic, verdict.reason, verdict.source, origin
            ).inc(exemplar=sample)
        where = (route, names.model, verdict.topic, origin)
        self._expected_refusals.labels(*where).inc(verdict.p_refusal)
        self._expected_false.labels(*where).inc(verdict.p_false_refusal)
        self._words.labels(origin, verdict.outcome).observe(len(exchange.response.split()))

    def unscored(self, route: str, cause: UnscoredCause) -> None:
        self._unscored.labels(route, cause).inc()

    def dropped(self, cause: DropCause) -> None:
        self._dropped.labels(cause).inc()

    def batch(self, seconds: float) -> None:
        self._scoring.observe(seconds)

    def served(
        self, capture: Capture, operation: str, provider: str, exchanges: Iterable[tuple[Exchange, Names]]
    ) -> None:
        """Observe a conversation's times and tokens, once a capture; `exchanges` may be empty."""
        known = list(exchanges)
        first = known[0][1] if known else Names(UNKNOWN, UNKNOWN, "")
        labels = (operation, provider, first.request_model, first.model)
        error = _error_type(capture)
        self._duration.labels(*labels, error).observe(
            max(capture.duration_s, 0.0), exemplar=_exemplar(capture)
        )
        streamed = bool(known) and known[0][0].streamed
        if streamed and capture.first_byte_s is not None and capture.status < 400:
            self._first_token.labels(*labels).observe(max(capture.first_byte_s, 0.0))
        for exchange, _ in known:
            for kind, tokens in (("input", exchange.input_tokens), ("output", exchange.output_tokens)):
                if tokens is not None and tokens >= 0:
                    self._tokens.labels(*labels, kind).observe(tokens)

    def render(self, *, openmetrics: bool) -> bytes:
        """Return the exposition; takes milliseconds for each thousand series."""
        render: Callable[[Collector], bytes] = open_format if openmetrics else text_format
        return render(_WithoutCreated(self.registry))

    def totals(self) -> Mapping[str, float]:
        """Return sums over all labels, for people: exchanges, refusals, blocks, unscored, dropped."""
        sums = {"exchanges": 0.0, "refusals": 0.0, "refusals of benign prompts": 0.0, "provider blocks": 0.0}
        for sample in _samples(self._exchanges):
            outcome = sample.labels["outcome"]
            sums["exchanges"] += sample.value
            if outcome in ("partial_refusal", "full_refusal"):
                sums["refusals"] += sample.value
                if sample.labels["prompt_class"] == "benign":
                    sums["refusals of benign prompts"] += sample.value
            elif outcome == "provider_block":
                sums["provider blocks"] += sample.value
        sums["unscored"] = sum(sample.value for sample in _samples(self._unscored))
        sums["dropped"] = sum(sample.value for sample in _samples(self._dropped))
        return sums


class _WithoutCreated:
    """The registry without `_created` series: they double what is scraped, and few servers read them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


def _samples(counter: Counter) -> list[Sample]:
    return [s for metric in counter.collect() for s in metric.samples if s.name.endswith("_total")]


def _exemplar(capture: Capture) -> dict[str, str] | None:
    return {"sample_id": capture.id} if 0 < len(capture.id) <= _EXEMPLAR_ID else None


def _error_type(capture: Capture) -> str:
    """OpenTelemetry's `error.type`: the HTTP status, or how the exchange ended; empty when all went well."""
    if capture.status >= 400:
        return str(capture.status) if capture.status < 600 else "_OTHER"
    return "" if capture.end == "complete" else capture.end
