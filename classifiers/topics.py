"""Operators' own topics from a handful of example prompts each, without training anything.

A topic is its examples' embeddings. A prompt gets the topic of its nearest prototypes (the mean
similarity to the best few examples, after Snell et al. 2017, "Prototypical networks"), if that is
similar enough; otherwise the built-in topic stands, or "other" where the operator replaced the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from classifiers.labels import OTHER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

DEFAULT_THRESHOLD: Final = 0.45  # cosine; unrelated prompts lie near 0.1, re-wordings above 0.6
NEAREST: Final = 2
CENTRE_SHARE: Final = 0.5  # how much a topic's centre counts beside its nearest examples


class PrototypeTopics:
    """Maps a prompt's embedding to an operator's topic. Pure once made; safe from any thread."""

    def __init__(
        self,
        topics: Mapping[str, Sequence[str]],
        embed: Callable[[Sequence[str]], Vector],
        threshold: float = DEFAULT_THRESHOLD,
        *,
        replace: bool = False,
    ) -> None:
        """Embed the examples; `embed` is `Classifier.embed`: n prompts → (n, d), each row of length 1.

        `replace` leaves only the operator's topics and "other"; otherwise they extend the built-in list.
        Raises ValueError, one sentence, for a topic without examples or a threshold outside 0 to 1.
        """
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"the topic threshold must lie between 0 and 1, not at {threshold}")
        for name, examples in topics.items():
            if not [example for example in examples if example.strip()]:
                raise ValueError(f"the topic {name!r} has no example prompts")
        self.names: tuple[str, ...] = tuple(topics)
        self.threshold = threshold
        self.replace = replace
        self._examples = [
            embed([example for example in examples if example.strip()]) for examples in topics.values()
        ]
        self._centres = [_unit(examples.mean(axis=0)) for examples in self._examples]

    def similarities(self, embedding: Vector) -> NDArray[np.float64]:
        """Return one similarity (-1 to 1) a topic, in the order of `names`; embedding (d,)."""
        found = np.zeros(len(self.names))
        for place, (examples, centre) in enumerate(zip(self._examples, self._centres, strict=True)):
            nearest = np.sort(examples @ embedding)[-NEAREST:].mean()
            found[place] = CENTRE_SHARE * float(centre @ embedding) + (1 - CENTRE_SHARE) * float(nearest)
        return found

    def label(self, embedding: Vector, builtin: str, _probabilities: Sequence[float] = ()) -> str:
        """Return the topic of a prompt: an own one if near enough, else the built-in label or "other".

        embedding (d,), length 1; `builtin` and `_probabilities` are `Scores.topic_label` and `Scores.topic`.
        An own topic that is near enough goes before a built-in one, however sure (so the probabilities do
        not count yet): the operator named it, so it is the one that is asked for.
        """
        if self.names:
            similarities = self.similarities(embedding)
            best = int(similarities.argmax())
            if similarities[best] >= self.threshold:
                return self.names[best]
        return OTHER if self.replace else builtin


def _unit(vector: Vector) -> Vector:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
