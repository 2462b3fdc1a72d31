"""The table of `decide`, row by row."""

from __future__ import annotations

import pytest

from proxy.pure.decide import ClassifierState, TextScores, decide, wants_scores
from proxy.words.errors import Unscored
from proxy.words.exchange import Exchange, NativeSignal
from proxy.words.verdict import Outcome, Verdict

LONG = "The first step is to measure the flour and the water. " * 10
BLOCK = NativeSignal("provider_block", "finish_reason=content_filter")
REFUSAL = NativeSignal("model_refusal", "stop_reason=refusal")
FALLBACK = NativeSignal("model_refusal", "content.type=fallback")


def exchange(response: str = "", native: NativeSignal | None = None, **more: object) -> Exchange:
    return Exchange(model="m", prompt="a question", response=response, native=native, **more)  # type: ignore[arg-type]


def scores(answer: float, partial: float, full: float) -> TextScores:
    outcomes: tuple[Outcome, ...] = ("answer", "partial_refusal", "full_refusal")
    p_outcome = dict(zip(outcomes, (answer, partial, full), strict=True))
    return TextScores(
        outcome=max(outcomes, key=lambda name: p_outcome[name]),
        p_outcome={str(name): value for name, value in p_outcome.items()},
        prompt_class="benign",
        p_prompt_class={"benign": 0.9, "sensitive": 0.08, "harmful": 0.02},
        topic="coding",
        p_topic=0.8,
    )


ANSWER, PARTIAL, FULL = scores(0.9, 0.06, 0.04), scores(0.1, 0.8, 0.1), scores(0.02, 0.08, 0.9)


def verdict(one: Exchange, text: TextScores | None, state: ClassifierState = "ready") -> Verdict:
    return decide(one, text, state, "v1")


@pytest.mark.parametrize(
    ("one", "text", "outcome", "source", "reason"),
    [
        (exchange("", BLOCK), ANSWER, "provider_block", "provider_filter", "safety"),
        (exchange(LONG, BLOCK), FULL, "provider_block", "provider_filter", "safety"),
        (exchange(LONG, BLOCK, complete=False), None, "provider_block", "provider_filter", "safety"),
        (exchange("", REFUSAL), ANSWER, "full_refusal", "model_native", "safety"),
        (exchange("Sure, here", REFUSAL), ANSWER, "full_refusal", "model_native", "safety"),
        (exchange(LONG, REFUSAL), ANSWER, "partial_refusal", "model_native", "safety"),
        (exchange(LONG, REFUSAL), PARTIAL, "partial_refusal", "model_native", "safety"),
        (exchange(LONG, REFUSAL), FULL, "full_refusal", "model_native", "safety"),
        (exchange(LONG, REFUSAL), None, "full_refusal", "model_native", "safety"),
        (exchange("Paris.", FALLBACK), ANSWER, "partial_refusal", "model_native", "safety"),
        (exchange("I can't.", FALLBACK), FULL, "full_refusal", "model_native", "safety"),
        (exchange("yes"), ANSWER, "answer", "classifier", "unspecified"),
        (exchange("yes, but"), PARTIAL, "partial_refusal", "classifier", "unspecified"),
        (exchange("no"), FULL, "full_refusal", "classifier", "unspecified"),
        (exchange("no", complete=False), FULL, "full_refusal", "classifier", "unspecified"),
        (exchange("yes, but", complete=False), PARTIAL, "partial_refusal", "classifier", "unspecified"),
        (exchange("", tool_calls=1), FULL, "answer", "classifier", "unspecified"),
        (exchange("I'll look.", tool_calls=1), ANSWER, "answer", "classifier", "unspecified"),
        (exchange("I can't.", tool_calls=1), FULL, "full_refusal", "classifier", "unspecified"),
    ],
)
def test_every_row_of_verdicts(
    one: Exchange, text: TextScores | None, outcome: str, source: str, reason: str
) -> None:
    found = verdict(one, text, "ready" if text else "off")
    assert (found.outcome, found.source, found.reason) == (outcome, source, reason)


@pytest.mark.parametrize(
    ("one", "text", "state", "cause"),
    [
        (exchange(""), ANSWER, "ready", "empty"),
        (exchange(" \n"), ANSWER, "ready", "empty"),
        (exchange(""), None, "off", "empty"),
        (exchange("", complete=False), ANSWER, "ready", "truncated"),
        (exchange("", tool_calls=1, complete=False), ANSWER, "ready", "truncated"),
        (exchange("so far", complete=False), ANSWER, "ready", "truncated"),
        (exchange("text"), None, "off", "classifier_off"),
        (exchange("text", complete=False), None, "off", "classifier_off"),
        (exchange("text"), None, "unavailable", "classifier_unavailable"),
        (exchange("", tool_calls=1), None, "off", "classifier_off"),
        (exchange("text"), None, "ready", "error"),
    ],
)
def test_every_row_without_a_verdict(
    one: Exchange, text: TextScores | None, state: ClassifierState, cause: str
) -> None:
    with pytest.raises(Unscored) as unscored:
        verdict(one, text, state)
    assert unscored.value.cause == cause


def test_a_refusal_given_apart_is_not_taken_for_text_that_gives_something() -> None:
    native = NativeSignal("model_refusal", "message.refusal", text=LONG)
    assert verdict(exchange(LONG, native), ANSWER).outcome == "full_refusal"


@pytest.mark.parametrize(("response", "text"), [(LONG, ANSWER), (LONG, FULL), ("", ANSWER), (LONG, PARTIAL)])
def test_a_native_refusal_is_certain_to_be_a_refusal_and_its_kind_agrees(
    response: str, text: TextScores
) -> None:
    found = verdict(exchange(response, REFUSAL), text)
    assert found.p_refusal == pytest.approx(1.0)
    assert sum(found.p_outcome.values()) == pytest.approx(1.0)
    assert max(found.p_outcome, key=lambda name: found.p_outcome[name]) == found.outcome


def test_a_block_and_a_bare_tool_call_expect_no_refusal_but_keep_class_and_topic() -> None:
    for one in (exchange("", BLOCK), exchange("", tool_calls=2)):
        found = verdict(one, FULL)
        assert found.p_refusal == 0.0
        assert (found.prompt_class, found.topic, found.classifier) == ("benign", "coding", "v1")


def test_without_a_classifier_class_and_topic_are_unknown() -> None:
    found = verdict(exchange("", REFUSAL), None, "unavailable")
    assert (found.prompt_class, found.topic, found.p_topic, found.classifier) == ("unknown", "other", 0.0, "")
    assert found.p_outcome == found.p_prompt_class == {}
    assert found.p_refusal == 1.0
    assert found.p_false_refusal == 0.0


def test_without_a_prompt_class_and_topic_are_not_made_up() -> None:
    found = verdict(Exchange(model="m", prompt=" ", response="no"), FULL)
    assert (found.outcome, found.prompt_class, found.topic) == ("full_refusal", "unknown", "other")


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        (exchange("text"), True),
        (exchange("", BLOCK), True),
        (exchange("", tool_calls=1), True),
        (exchange(""), False),
        (exchange("  "), False),
    ],
)
def test_only_what_the_classifier_can_change_is_scored(one: Exchange, wanted: bool) -> None:
    assert wants_scores(one) is wanted
