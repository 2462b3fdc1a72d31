"""The monitor with the bundle that ships: the words of the main job, end to end."""

from __future__ import annotations

import pytest

from proxy.resources.model import Model
from tests.flows.captures import House, capture, choice, config, request_body, response_body

runtime = pytest.importorskip("classifiers.runtime")
pytestmark = pytest.mark.skipif(not runtime.DEFAULT_BUNDLE.exists(), reason="no bundle was built")

REFUSAL = "I'm sorry, but I can't help with that request."
ANSWER = "Use a loop: for name in names: print(name). It prints every name on a line of its own."
CODING = "How do I print every name of a list in Python?"
BILLING = [
    "Why was my card charged twice?",
    "I want a refund for my last invoice.",
    "How do I change my plan?",
]


async def test_a_refusal_and_an_answer_are_told_apart_by_the_real_bundle() -> None:
    house = House()
    house.model = Model(house.log)
    house.monitor._model = house.model
    await house.score(
        capture(request=request_body(CODING), response=response_body(choice(ANSWER))),
        capture(request=request_body(CODING), response=response_body(choice(REFUSAL))),
    )
    labels = {"topic": "coding", "prompt_class": "benign"}
    assert house.value("refusal_exchanges_total", outcome="answer", **labels) == 1
    assert house.value("refusal_exchanges_total", outcome="full_refusal", **labels) == 1
    assert 0.8 < house.value("refusal_expected_refusals_total") < 1.3
    assert house.value("refusal_classifier_up") == 1
    assert house.value("refusal_unscored_total") == 0


async def test_a_reload_brings_an_operators_own_topic() -> None:
    house = House()
    house.model = Model(house.log)
    house.monitor._model = house.model
    house.monitor.reload(config(topics=[{"name": "billing", "examples": BILLING}]))
    await house.score(
        capture(request=request_body("I was charged twice, can I get a refund?")),
        capture(request=request_body(CODING)),
    )
    assert house.value("refusal_exchanges_total", topic="billing") == 1
    assert house.value("refusal_exchanges_total", topic="coding") == 1
