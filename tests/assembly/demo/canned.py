"""A small /metrics, as the monitor renders it."""

from __future__ import annotations

from typing import Final

from proxy.words.verdict import TOPICS

_EXCHANGES: Final = (
    # model, route, prompt class, topic, outcome, how many
    ("demo-chat-1", "openai", "benign", "medical", "answer", 120),
    ("demo-chat-1", "openai", "benign", "medical", "full_refusal", 12),
    ("demo-chat-1", "anthropic", "sensitive", "medical", "partial_refusal", 8),
    ("demo-chat-1", "openai", "harmful", "weapons", "full_refusal", 40),
    ("demo-chat-2", "openai", "benign", "returns_refunds", "answer", 60),
    ("demo-chat-2", "openai", "benign", "returns_refunds", "full_refusal", 30),
    ("demo-chat-2", "openai", "harmful", "weapons", "provider_block", 2),
)
_SERIES: Final = (
    'refusal_exchanges_total{{model="{}",origin="live",route="{}",'
    'prompt_class="{}",topic="{}",outcome="{}"}} {}'
)
METRICS: Final = (
    "# HELP refusal_exchanges_total Scored exchanges.\n# TYPE refusal_exchanges_total counter\n"
    + "".join(_SERIES.format(*row) + "\n" for row in _EXCHANGES)
    + """\
# HELP refusal_unscored_total Exchanges that got no verdict, by cause.
# TYPE refusal_unscored_total counter
refusal_unscored_total{cause="not_a_conversation",route="openai"} 3.0
refusal_unscored_total{cause="truncated",route="anthropic"} 6.0
refusal_unscored_total{cause="error",route="anthropic"} 0.0
# HELP refusal_captures_dropped_total Captures lost before scoring, by cause.
# TYPE refusal_captures_dropped_total counter
refusal_captures_dropped_total{cause="monitor_lost"} 1.0
# HELP refusal_proxy_requests_total Requests that the proxy finished.
# TYPE refusal_proxy_requests_total counter
refusal_proxy_requests_total{code="200",method="POST",route="openai"} 280.0
refusal_proxy_requests_total{code="529",method="POST",route="anthropic"} 1.0
# HELP refusal_classifier_up 1 while a classifier is loaded, else 0.
# TYPE refusal_classifier_up gauge
refusal_classifier_up 1.0
# HELP refusal_classifier_info The classifier in use.
# TYPE refusal_classifier_info gauge
refusal_classifier_info{state="ready",version="2026.11"} 1.0
# HELP refusal_scored_lag_seconds How far scoring is behind.
# TYPE refusal_scored_lag_seconds gauge
refusal_scored_lag_seconds 0.02
# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.79e+09
"""
)


def every_topic(number: int) -> str:
    """More series: `number` answers of each built-in topic."""
    rows = [("demo-chat-1", "openai", "benign", topic, "answer", number) for topic in TOPICS]
    return "# TYPE refusal_exchanges_total counter\n" + "".join(_SERIES.format(*row) + "\n" for row in rows)
