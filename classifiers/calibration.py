"""Calibration in numpy: probabilities from logits, how far they are from the truth, and thresholds.

Logits are divided by one temperature and shifted by one bias a class (temperature and vector scaling: Guo
et al. 2017, "On calibration of modern neural networks"), fitted on the int8 model's own logits over the
validation split, since what ships is what must be calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

BINS = 15
PLATEAU = 0.005  # of F1


@dataclass(frozen=True, slots=True)
class Scaling:
    """Turns a head's logits into probabilities: softmax(logits / temperature + bias)."""

    temperature: float
    bias: tuple[float, ...]

    def probabilities(self, logits: NDArray[np.floating[Any]]) -> Floats:
        """(..., classes) logits → the same shape, float64, each row sums to one."""
        return softmax(logits.astype(np.float64) / self.temperature + np.asarray(self.bias))


@dataclass(frozen=True, slots=True)
class Point:
    """A threshold with what it does on the rows it was chosen on."""

    threshold: float
    precision: float
    recall: float
    false_alarms: float


def softmax(logits: Floats) -> Floats:
    """(..., classes) → probabilities over the last axis; the maximum is taken out, so nothing overflows."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)  # type: ignore[no-any-return]


def fit(logits: Floats, labels: Ints, weights: Floats, *, steps: int = 2000, rate: float = 0.05) -> Scaling:
    """Fit a Scaling by gradient descent on the weighted log loss, with a small pull of the bias to zero.

    logits (n, classes), labels (n,) indices, weights (n,). Adam from a fixed start: deterministic.
    """
    classes, truth = logits.shape[1], np.eye(logits.shape[1])[labels]
    weights = weights / weights.sum()
    theta, first, second = np.zeros(classes + 1), np.zeros(classes + 1), np.zeros(classes + 1)
    for step in range(1, steps + 1):
        inverse = np.exp(-theta[0])
        error = (softmax(logits * inverse + theta[1:]) - truth) * weights[:, None]
        slope = np.concatenate([[-(error * logits).sum() * inverse], error.sum(axis=0) + 0.002 * theta[1:]])
        first, second = 0.9 * first + 0.1 * slope, 0.99 * second + 0.01 * slope**2
        theta -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-9)
    return Scaling(float(np.exp(theta[0])), tuple(float(value) for value in theta[1:]))


def expected_calibration_error(probabilities: Floats, labels: Ints, bins: int = BINS) -> float:
    """Return the ECE of the most likely class, with bins of equal width over the confidence (0 to 1)."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(right[place == bin_].mean() - confidence[place == bin_].mean()) * (place == bin_).mean()
        for bin_ in np.unique(place)
    ]
    return float(sum(gaps))


def operating_point(scores: Floats, positive: NDArray[np.bool_], threshold: float) -> Point:
    """Return precision, recall and false alarms (share of the negatives) of `scores >= threshold`."""
    called = scores >= threshold
    hits = int((called & positive).sum())
    return Point(
        threshold=float(threshold),
        precision=hits / max(1, int(called.sum())),
        recall=hits / max(1, int(positive.sum())),
        false_alarms=int((called & ~positive).sum()) / max(1, int((~positive).sum())),
    )


def best_threshold(scores: Floats, positive: NDArray[np.bool_], *, most_false_alarms: float) -> Point:
    """Return the threshold with about the best F1 among those within a bound on false alarms.

    scores and positive (n,). F1 is flat near its peak, and where on that plateau a few hundred rows put the
    peak is chance; so of all within PLATEAU of it, the one nearest to an even chance is taken. Where no
    threshold keeps the bound, the one with the fewest false alarms.
    """

    def f1(point: Point) -> float:
        return 2 * point.precision * point.recall / max(1e-9, point.precision + point.recall)

    points = [operating_point(scores, positive, step / 100) for step in range(20, 96)]
    within = [point for point in points if point.false_alarms <= most_false_alarms]
    if not within:
        return min(points, key=lambda point: point.false_alarms)
    best = max(map(f1, within))
    plateau = [point for point in within if f1(point) >= best - PLATEAU]
    return min(plateau, key=lambda point: abs(point.threshold - 0.5))
