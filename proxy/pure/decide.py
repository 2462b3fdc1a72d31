"""From an exchange and what the classifier says of it to one verdict, or to the cause why there is none.

The first row that fits decides. "Substantial" is text of at least `SUBSTANTIAL_WORDS` words, or any text
beside a `fallback` marker (a second model answered where the first refused).

| native signal | response | classifier | verdict |
| --- | --- | --- | --- |
| provider_block | any | any | provider_block, by provider_filter, for safety |
| model_refusal | substantial, and the classifier finds something given in it | ready | partial_refusal, by model_native, for safety |
| model_refusal | any other | any | full_refusal, by model_native, for safety |
| none | broken off before any text | any | unscored: truncated |
| none | no text, no tool call | any | unscored: empty |
| none | text or tool call | off or unavailable | unscored: classifier_off, classifier_unavailable |
| none | tool call without text | ready | answer |
| none | broken off, an answer so far | ready | unscored: truncated |
| none | text | ready | as the classifier says |

Native signals stand above the classifier: the marker is a fact, the classifier's word a likelihood. So the
probabilities of a native refusal are the classifier's *given that it is a refusal*: what it put on `answer`
goes to `partial_refusal` where the text gives something, else to `full_refusal`. A block says nothing about
what the model would have said: its outcome probabilities are empty, and so are a bare tool call's.

A bare tool call is not counted while there is no classifier: counting answers of one kind only, and
refusals of every kind, would make a rate out of two different populations.

Broken off is what the exchange says of itself (no end marker of the provider), not the connection: many
SDKs close theirs as soon as they have read the end marker, and have the whole answer.
"""  # noqa: E501 - table rows

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from proxy.pure.labels import OTHER
from proxy.words.errors import Unscored
from proxy.words.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.words.errors import UnscoredCause
    from proxy.words.exchange import Exchange
    from proxy.words.verdict import Outcome, PromptClass

SUBSTANTIAL_WORDS: Final = 30  # about two sentences: more than a preamble, less than any answer worth keeping
FALLBACK: Final = "fallback"

ClassifierState = Literal["ready", "off", "unavailable"]
_ABSENT: Final[Mapping[ClassifierState, UnscoredCause]] = {
    "off": "classifier_off",
    "unavailable": "classifier_unavailable",
}


@dataclass(frozen=True, slots=True)
class TextScores:
    """What the classifier says of one exchange: labels, and probabilities that sum to 1."""

    outcome: Outcome
    p_outcome: dict[str, float]
    prompt_class: PromptClass
    p_prompt_class: dict[str, float]
    topic: str
    p_topic: float


def wants_scores(exchange: Exchange) -> bool:
    """Whether the classifier can change anything about this exchange: its outcome, or its topic and class."""
    return bool(exchange.native or exchange.response.strip() or exchange.tool_calls)


def decide(exchange: Exchange, scores: TextScores | None, state: ClassifierState, version: str) -> Verdict:
    """Return the verdict; raises Unscored. `scores` is None unless `state` is ready."""
    native = exchange.native
    if native is not None:
        if native.kind == "provider_block":
            return _verdict(exchange, scores, version, outcome="provider_block", source="provider_filter")
        given = _gives_something(exchange, scores)
        outcome: Outcome = "partial_refusal" if given else "full_refusal"
        p_outcome = _given_refusal(scores.p_outcome, given=given) if scores else {}
        return _verdict(
            exchange, scores, version, outcome=outcome, source="model_native", p_outcome=p_outcome
        )
    has_text = bool(exchange.response.strip())
    if not has_text and not exchange.complete:
        raise Unscored("truncated", "broken off before any text")
    if not has_text and not exchange.tool_calls:
        raise Unscored("empty")
    if scores is None or state != "ready":
        raise Unscored(_ABSENT.get(state, "error"))
    outcome = scores.outcome if has_text else "answer"
    if outcome == "answer" and not exchange.complete:
        raise Unscored("truncated", "broken off, an answer so far")
    p_outcome = scores.p_outcome if has_text else {}
    return _verdict(exchange, scores, version, outcome=outcome, source="classifier", p_outcome=p_outcome)


def _gives_something(exchange: Exchange, scores: TextScores | None) -> bool:
    """Whether a native refusal still gave a part of what was asked, so that it is a partial one."""
    native, text = exchange.native, exchange.response.strip()
    assert native is not None
    if scores is None or not text or text == native.text.strip():
        return False
    substantial = FALLBACK in native.marker or len(text.split()) >= SUBSTANTIAL_WORDS
    return substantial and scores.p_outcome["full_refusal"] < 0.5


def _given_refusal(p_outcome: Mapping[str, float], *, given: bool) -> dict[str, float]:
    """Condition on what the marker says: a refusal, and one of which kind where the text leaves no doubt."""
    full = p_outcome["full_refusal"] if given else 1.0
    return {"answer": 0.0, "partial_refusal": 1.0 - full, "full_refusal": full}


def _verdict(
    exchange: Exchange,
    scores: TextScores | None,
    version: str,
    *,
    outcome: Outcome,
    source: Literal["classifier", "model_native", "provider_filter"],
    p_outcome: dict[str, float] | None = None,
) -> Verdict:
    # Without a prompt (an image, or a request longer than its copy) class and topic would be made up.
    known = scores if exchange.prompt.strip() else None
    return Verdict(
        outcome=outcome,
        reason="unspecified" if source == "classifier" else "safety",
        prompt_class=known.prompt_class if known else "unknown",
        topic=known.topic if known else OTHER,
        source=source,
        p_outcome=p_outcome or {},
        p_prompt_class=known.p_prompt_class if known else {},
        p_topic=known.p_topic if known else 0.0,
        classifier=version if scores else "",
    )
