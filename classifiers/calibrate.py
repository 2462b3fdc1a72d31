"""Step 4, calibrate: the bundle's own logits on the validation split → temperatures and thresholds.

The thresholds favour few false alarms: a false refusal rate made of false alarms is worth nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from rich.progress import track

from classifiers.bundle import NEUTRAL, Manifest, Thresholds, read_manifest, write_manifest
from classifiers.calibration import Scaling, best_threshold, expected_calibration_error, fit, operating_point
from classifiers.labels import HEADS, OUTCOMES, PROMPT_CLASSES
from classifiers.rows import DataError, Row, read_rows
from classifiers.runtime import Classifier

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from rich.console import Console

    Floats = NDArray[np.float64]

MOST_FALSE_REFUSALS, MOST_FALSE_HARMS = 0.03, 0.06
TOPIC_PRECISION = 0.5  # below this chance of being right, a topic is worth less than "other"


@dataclass(frozen=True, slots=True)
class Labelled:
    """One head's labelled rows: logits (n, classes), label indices (n,), weights (n,)."""

    rows: list[Row]
    logits: Floats
    labels: NDArray[np.int64]
    weights: Floats


def read_heads(classifier: Classifier, rows: Sequence[Row], what: str) -> dict[str, Labelled]:
    """Run the bundle over rows and return each head's part of them, by its labels."""
    logits = [classifier.logits(row.prompt, row.response or "") for row in track(rows, what, transient=True)]
    found = {}
    for place, (head, labels) in enumerate(HEADS.items()):
        kept = [number for number, row in enumerate(rows) if getattr(row, head)]
        if not kept:
            raise DataError(f"no row has a label for {head}; run prepare again")
        found[head] = Labelled(
            rows=[rows[number] for number in kept],
            logits=np.stack([logits[number][place] for number in kept]).astype(np.float64),
            labels=np.array([labels.index(getattr(rows[number], head)) for number in kept]),
            weights=np.array([rows[number].weight for number in kept]),
        )
    return found


def calibrate(work: Path, bundle: Path, console: Console) -> Manifest:
    """Fit scalings and thresholds on validation rows and write them into bundle.json."""
    rows = [row for row in read_rows(work / "rows.jsonl") if row.split == "validation"]
    heads = read_heads(Classifier.load(bundle), rows, "validation")
    scalings: dict[str, Scaling] = {}
    for head, part in heads.items():
        scalings[head] = fit(part.logits, part.labels, part.weights)
        before, after = (
            expected_calibration_error(scaling.probabilities(part.logits), part.labels)
            for scaling in (NEUTRAL[head], scalings[head])
        )
        console.print(f"{head}: temperature {scalings[head].temperature:.2f}, ECE {before:.3f} → {after:.3f}")

    outcome, harm, topic = (
        scalings[head].probabilities(heads[head].logits) for head in ("outcome", "prompt_class", "topic")
    )
    refused = heads["outcome"].labels != OUTCOMES.index("answer")
    refusal = best_threshold(1 - outcome[:, 0], refused, most_false_alarms=MOST_FALSE_REFUSALS)
    harmful_rows = heads["prompt_class"].labels == PROMPT_CLASSES.index("harmful")
    harmful = best_threshold(harm[:, 2], harmful_rows, most_false_alarms=MOST_FALSE_HARMS)
    right = topic.argmax(axis=1) == heads["topic"].labels
    unsure = operating_point(topic.max(axis=1), right, _topic_threshold(topic.max(axis=1), right))
    manifest = replace(
        read_manifest(bundle),
        calibration=scalings,
        thresholds=Thresholds(refusal.threshold, harmful.threshold, unsure.threshold),
        operating_points={
            "refusal": asdict(refusal),
            "harmful": asdict(harmful),
            "topic": asdict(unsure),
        },
    )
    for name, point in manifest.operating_points.items():
        console.print(name, point, highlight=False)
    return write_manifest(bundle, manifest)


def _topic_threshold(confidence: Floats, right: NDArray[np.bool_]) -> float:
    """Return the lowest confidence (in steps of 0.05) around which most topics are right."""
    for step in range(2, 15):
        near = (confidence >= step * 0.05) & (confidence < step * 0.05 + 0.1)
        if near.sum() >= 5 and right[near].mean() >= TOPIC_PRECISION:
            return step * 0.05
    return Thresholds().topic
