"""Scoring: the loaded bundle as one object. Imports numpy, onnxruntime and tokenizers, never torch or proxy.

Each exchange runs through the encoder by itself. A batch would save little on one CPU thread, costs
padding, and would change verdicts: int8 activations are scaled over a whole batch, so an exchange's
probabilities would depend on its neighbours. Alone, the same text always gets the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import onnxruntime

from classifiers.bundle import MANIFEST, MODEL, TOKENIZER, BundleError, Manifest, read_manifest
from classifiers.labels import HEADS, OTHER, OUTCOMES, PROMPT_CLASSES, TOPICS
from classifiers.reader import Reader, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Vector = NDArray[np.float32]

__all__ = [
    "DEFAULT_BUNDLE",
    "OUTCOMES",
    "PROMPT_CLASSES",
    "TOPICS",
    "BundleError",
    "Classifier",
    "Scores",
]

DEFAULT_BUNDLE: Final = Path(__file__).parent / "bundles" / "default"
OUTPUTS: Final = (*HEADS, "embedding")


@dataclass(frozen=True, slots=True)
class Scores:
    """One exchange's calibrated probabilities, in the order of the label lists, and the decided labels."""

    outcome: tuple[float, float, float]
    prompt_class: tuple[float, float, float]
    topic: tuple[float, ...]
    outcome_label: str
    prompt_class_label: str
    topic_label: str
    embedding: Vector  # of the prompt alone, float32, length 1 (L2)


class Classifier:
    """A loaded bundle. Made for one thread; `score` never raises on text, whatever it holds."""

    def __init__(self, manifest: Manifest, session: onnxruntime.InferenceSession, reader: Reader) -> None:
        self.version = manifest.version
        self.topics: tuple[str, ...] = TOPICS
        self.manifest = manifest
        self._session = session
        self._reader = reader

    @classmethod
    def load(cls, folder: Path, *, threads: int = 1) -> Classifier:
        """Check a bundle's hashes, load it and score once; raises BundleError, one sentence."""
        manifest = read_manifest(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                str(folder / MODEL), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no common base class for its errors
            raise BundleError(f"{folder / MODEL} is not a readable ONNX model: {error}") from error
        if missing := set(OUTPUTS) - {output.name for output in session.get_outputs()}:
            raise BundleError(f"{folder / MODEL} has no output named {sorted(missing)[0]}")
        try:
            reader = Reader.load(folder / TOKENIZER, manifest.lengths)
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(f"{folder / TOKENIZER} is not a readable tokenizer: {error}") from error
        classifier = cls(manifest, session, reader)
        try:
            classifier.score([("Hello", "Hello, how can I help?")])
        except Exception as error:  # a model that loads but does not run is a corrupt bundle, too
            raise BundleError(f"{folder / MODEL} does not fit {MANIFEST}: {error}") from error
        return classifier

    def score(self, items: Sequence[tuple[str, str]]) -> list[Scores]:
        """Score (prompt, response) pairs, any number of them, in order."""
        return [self._score(prompt, response) for prompt, response in items]

    def embed(self, prompts: Sequence[str]) -> Vector:
        """Return the prompts' embeddings, (n, d) float32, each of length 1."""
        if not prompts:
            return np.zeros((0, self._width), dtype=np.float32)
        return np.stack([self._embedding(self._run(self._reader.prompt(prompt))[3]) for prompt in prompts])

    def logits(self, prompt: str, response: str) -> tuple[Vector, Vector, Vector]:
        """Return the raw outcome (3,), prompt class (3,) and topic (20,) logits; for calibration."""
        outcome = self._run(self._reader.pair(prompt, response))[0]
        _, prompt_class, topic, _ = self._run(self._reader.prompt(prompt))
        return outcome, prompt_class, topic

    def _score(self, prompt: str, response: str) -> Scores:
        outcome_logits = self._run(self._reader.pair(prompt, response))[0]
        _, class_logits, topic_logits, embedding = self._run(self._reader.prompt(prompt))
        scale = self.manifest.calibration
        outcome = scale["outcome"].probabilities(outcome_logits)
        prompt_class = scale["prompt_class"].probabilities(class_logits)
        topic = scale["topic"].probabilities(topic_logits)
        return Scores(
            outcome=(float(outcome[0]), float(outcome[1]), float(outcome[2])),
            prompt_class=(float(prompt_class[0]), float(prompt_class[1]), float(prompt_class[2])),
            topic=tuple(topic.tolist()),
            outcome_label=outcome_label(outcome, self.manifest.thresholds.refusal),
            prompt_class_label=prompt_class_label(prompt_class, self.manifest.thresholds.harmful),
            topic_label=topic_label(topic, self.manifest.thresholds.topic),
            embedding=self._embedding(embedding),
        )

    def _run(self, reading: Reading) -> list[Vector]:
        feed = {
            "ids": reading.ids[None],
            "types": reading.types[None],
            "mask": np.ones((1, len(reading.ids)), dtype=np.int64),
        }
        return [output[0] for output in self._session.run(OUTPUTS, feed)]

    @staticmethod
    def _embedding(raw: Vector) -> Vector:
        return (raw / max(float(np.linalg.norm(raw)), 1e-12)).astype(np.float32)

    @property
    def _width(self) -> int:
        return int(self._session.get_outputs()[OUTPUTS.index("embedding")].shape[-1])


def outcome_label(probabilities: NDArray[np.float64], threshold: float) -> str:
    """Decide (3,) probabilities: a refusal from `threshold` on, then the likelier of its two kinds."""
    if probabilities[1] + probabilities[2] < threshold:
        return OUTCOMES[0]
    return OUTCOMES[1] if probabilities[1] > probabilities[2] else OUTCOMES[2]


def prompt_class_label(probabilities: NDArray[np.float64], threshold: float) -> str:
    """Decide (3,) probabilities: harmful from `threshold` on, else the likelier of the other two."""
    if probabilities[2] >= threshold:
        return PROMPT_CLASSES[2]
    return PROMPT_CLASSES[0] if probabilities[0] >= probabilities[1] else PROMPT_CLASSES[1]


def topic_label(probabilities: NDArray[np.float64], threshold: float) -> str:
    """Decide (20,) probabilities: the likeliest topic, or "other" where even that one is unlikely."""
    best = int(probabilities.argmax())
    return TOPICS[best] if probabilities[best] >= threshold else OTHER
