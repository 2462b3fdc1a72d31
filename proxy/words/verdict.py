"""Verdict: what was decided about an exchange, by whom, and how sure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Outcome = Literal["answer", "partial_refusal", "full_refusal", "provider_block"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("answer", "partial_refusal", "full_refusal", "provider_block")
REFUSALS: Final[frozenset[Outcome]] = frozenset({"partial_refusal", "full_refusal"})

Reason = Literal["safety", "capability", "scope", "unspecified"]
REASONS: Final[tuple[Reason, ...]] = ("safety", "capability", "scope", "unspecified")

Source = Literal["classifier", "model_native", "provider_filter", "human"]

PromptClass = Literal["benign", "sensitive", "harmful"]
PROMPT_CLASSES: Final[tuple[PromptClass, ...]] = ("benign", "sensitive", "harmful")

TOPICS: Final[tuple[str, ...]] = (
    "medical",
    "mental_health",
    "self_harm",
    "legal",
    "finance",
    "security",
    "chemistry_biology",
    "weapons",
    "violence_crime",
    "hate_identity",
    "sexual",
    "privacy",
    "politics",
    "misinformation",
    "creative_writing",
    "math",
    "factual",
    "coding",
    "everyday",
    "other",
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One decision.

    `p_outcome` maps answer, partial_refusal and full_refusal to calibrated probabilities that sum to 1;
    `p_prompt_class` does so for the three prompt classes. Both are empty where only a native signal spoke
    and no classifier was there. `classifier` is the bundle's version, or "" without one.
    """

    outcome: Outcome
    reason: Reason
    prompt_class: PromptClass | Literal["unknown"]
    topic: str
    source: Source
    p_outcome: dict[str, float]
    p_prompt_class: dict[str, float]
    p_topic: float
    classifier: str

    @property
    def refused(self) -> bool:
        """The model itself refused, in part or in full (a provider's block is kept apart)."""
        return self.outcome in REFUSALS

    @property
    def p_refusal(self) -> float:
        """Calibrated probability of a partial or full refusal; 1 or 0 where only a native signal spoke."""
        if not self.p_outcome:
            return float(self.refused)
        return self.p_outcome["partial_refusal"] + self.p_outcome["full_refusal"]

    @property
    def p_false_refusal(self) -> float:
        """P(refusal) x P(benign): the two heads taken as independent given the text."""
        if self.reason not in ("safety", "unspecified"):
            return 0.0
        return self.p_refusal * self.p_prompt_class.get("benign", 0.0)
