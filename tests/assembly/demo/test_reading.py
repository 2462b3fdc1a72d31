"""Numbers from /metrics: parsed, summed, and with intervals that are right."""

from __future__ import annotations

import pytest

from proxy.assembly.demo.reading import Rate, read, wilson
from tests.assembly.demo.canned import METRICS


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [
        # Newcombe (1998), table I, method 3: the score method without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_stays_between_0_and_1_and_knows_nothing_of_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    for total in (1, 2, 10, 1000):
        for hits in range(0, total + 1, max(1, total // 10)):
            low, high = wilson(hits, total)
            assert 0.0 <= low <= hits / total <= high <= 1.0
        assert wilson(0, total)[0] == 0.0
        assert wilson(total, total)[1] == 1.0


def test_a_rate_says_when_there_are_few_samples() -> None:
    assert Rate(1, 29).few
    assert not Rate(1, 30).few
    assert Rate(0, 0).share == 0.0


def test_the_text_of_metrics_becomes_counts() -> None:
    reading = read(METRICS)
    assert reading.scored == 120 + 12 + 8 + 40 + 60 + 30 + 2
    assert reading.unscored.total() == 9
    assert reading.dropped.total() == 1
    assert reading.accounted == reading.scored + 10
    assert reading.requests == 281
    assert reading.classifier_up
    assert reading.classifier == "2026.11"
    assert reading.outcome("provider_block") == 2
    assert reading.models() == ["demo-chat-1", "demo-chat-2"]


def test_rates_choose_by_prompt_class_model_and_topic() -> None:
    reading = read(METRICS)
    assert reading.rate("benign", model="demo-chat-1") == Rate(12, 132)
    assert reading.rate("benign", model="demo-chat-2") == Rate(30, 90)
    assert reading.rate("sensitive", model="demo-chat-1") == Rate(8, 8)
    assert reading.rate("harmless", topic="medical") == Rate(20, 140)
    assert reading.refused(topic="weapons") == 40  # harmful prompts: refused, and rightly so
    assert reading.rate("harmless", topic="weapons") == Rate(0, 0)


def test_what_is_no_metrics_text_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"."):
        read("{ this is no metrics text")
