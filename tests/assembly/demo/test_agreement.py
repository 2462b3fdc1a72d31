"""The comparison with the script counts what it says it counts."""

from __future__ import annotations

from proxy.assembly.demo.agreement import compare, pairs, scripted
from proxy.assembly.demo.reading import Rate
from proxy.assembly.demo.script import NEW_MODEL, OLD_MODEL, Answer, Line, script
from proxy.pure.decide import TextScores
from proxy.words.verdict import Outcome, PromptClass

BENIGN = Line("a-1", "medical", "benign", "p", Answer("r", "answer"), Answer("no", "full_refusal", "safety"))
OWN = Line(
    "a-2", "everyday", "benign", "q", Answer("s", "answer"), own_topic="returns_refunds", hard_negative=True
)


def says(outcome: Outcome, prompt_class: PromptClass, topic: str) -> TextScores:
    return TextScores(outcome, {outcome: 1.0}, prompt_class, {prompt_class: 1.0}, topic, 1.0)


def test_each_share_is_over_its_own_denominator() -> None:
    asked = pairs([BENIGN, OWN])
    assert [pair.answer.text for pair in asked] == ["r", "s", "no"]
    result = compare(
        asked,
        [
            says("answer", "benign", "legal"),
            says("full_refusal", "benign", "returns_refunds"),
            says("partial_refusal", "benign", "medical"),
        ],
    )
    assert result.outcome == Rate(1, 3)
    assert result.refused_or_not == Rate(2, 3)
    assert result.refusals_found == Rate(1, 1)
    assert result.refusals_right == Rate(1, 2)
    assert result.hard_negatives == Rate(0, 1)
    assert result.prompt_class == Rate(2, 2)
    assert result.topic == Rate(1, 2)  # the operator's own topic counts; each prompt once


def test_pairs_hold_every_text_and_no_native_signal() -> None:
    lines = script()
    asked = pairs(lines)
    assert len(asked) > len(lines)
    assert all(pair.line.native is None for pair in asked)


def test_the_scripts_own_rate_rises_with_the_update() -> None:
    for prompt_class in ("benign", "sensitive"):
        old, new = (scripted(script(), model, prompt_class) for model in (OLD_MODEL, NEW_MODEL))
        assert old.total == new.total
        assert new.hits >= 2 * old.hits
