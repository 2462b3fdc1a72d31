"""Operators' own topics from a few examples, by the nearest prototypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from classifiers.topics import PrototypeTopics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from classifiers.runtime import Classifier

SHOP = {
    "returns": [
        "How do I send a jacket back?",
        "I want to return my order",
        "refund for shoes that don't fit",
    ],
    "delivery": ["Where is my parcel?", "my package has not arrived", "how long does shipping take"],
    "account": ["I forgot my password", "change the e-mail address of my account", "can't log in"],
    "sizing": ["what size should I order if I am 180 cm", "do these boots run small", "size chart for jeans"],
    "gift cards": ["how do I redeem a gift card", "buy a voucher for a friend", "gift card balance"],
}
ASKED = [
    ("I'd like to send these trousers back", "returns"),
    ("has my order been shipped yet", "delivery"),
    ("reset password link does not work", "account"),
    ("which size fits a waist of 84 cm", "sizing"),
    ("my gift card code is not accepted", "gift cards"),
]


def axes(prompts: Sequence[str]) -> NDArray[np.float32]:
    """Embed by first letter: a lies on the first axis, b on the second, all else on the third."""
    return np.array(
        [np.eye(3)["ab".find(prompt[0]) if prompt[0] in "ab" else 2] for prompt in prompts], np.float32
    )


def test_product_topics_are_told_apart_from_three_examples_each(classifier: Classifier) -> None:
    topics = PrototypeTopics(SHOP, classifier.embed, replace=True)
    found = [topics.label(classifier.embed([prompt])[0], "other") for prompt, _ in ASKED]
    assert sum(a == b for a, (_, b) in zip(found, ASKED, strict=True)) >= 4


def test_an_unrelated_prompt_falls_back_to_other_when_the_list_is_replaced(classifier: Classifier) -> None:
    topics = PrototypeTopics(SHOP, classifier.embed, replace=True)
    prompt = "Prove that there are infinitely many primes."
    assert topics.label(classifier.embed([prompt])[0], "math") == "other"


def test_the_built_in_topic_stands_where_no_own_one_is_near() -> None:
    topics = PrototypeTopics({"apples": ["a1", "a2"]}, axes)
    assert topics.label(axes(["a9"])[0], "everyday", (0.9, 0.1)) == "apples"
    assert topics.label(axes(["c"])[0], "everyday") == "everyday"


def test_the_nearest_topic_wins() -> None:
    topics = PrototypeTopics({"apples": ["a"], "beans": ["b"]}, axes)
    mixed = np.array([0.6, 0.8, 0.0], np.float32)
    assert topics.label(mixed, "other") == "beans"
    assert topics.similarities(mixed).tolist() == pytest.approx([0.6, 0.8])


def test_no_topics_leave_the_built_in_ones() -> None:
    assert PrototypeTopics({}, axes).label(axes(["a"])[0], "math") == "math"


@pytest.mark.parametrize("examples", [[], ["", "  "]])
def test_a_topic_without_examples_is_refused_by_name(examples: list[str]) -> None:
    with pytest.raises(ValueError, match="'empty'"):
        PrototypeTopics({"empty": examples}, axes)


def test_a_senseless_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        PrototypeTopics({"apples": ["a"]}, axes, 1.5)
