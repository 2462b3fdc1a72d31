"""The closed label lists of DESIGN.md §2. Their order is the order of every probability vector.

A bundle repeats these lists and is refused if they differ: a model trained for another order would
otherwise be wrong without a sound.
"""

from __future__ import annotations

from typing import Final

OUTCOMES: Final = ("answer", "partial_refusal", "full_refusal")
PROMPT_CLASSES: Final = ("benign", "sensitive", "harmful")
TOPICS: Final = (
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
HEADS: Final[dict[str, tuple[str, ...]]] = {
    "outcome": OUTCOMES,
    "prompt_class": PROMPT_CLASSES,
    "topic": TOPICS,
}
OTHER: Final = "other"
