"""Calibration: probabilities that mean what they say, and thresholds with known operating points."""

from __future__ import annotations

import numpy as np
import pytest

from classifiers.calibration import (
    Scaling,
    best_threshold,
    expected_calibration_error,
    fit,
    operating_point,
    softmax,
)


def test_softmax_survives_huge_logits() -> None:
    assert softmax(np.array([1e9, 0.0, -1e9])).tolist() == [1.0, 0.0, 0.0]


def test_fitting_undoes_overconfidence_and_a_shifted_class() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(20_000, 3)) * 2 + np.array([0.0, 1.0, -1.0])
    chances = softmax(honest)
    labels = np.array([rng.choice(3, p=row) for row in chances])
    scaling = fit(honest * 3 - np.array([0.0, 3.0, 0.0]), labels, np.ones(len(labels)))
    assert scaling.temperature == pytest.approx(3, rel=0.1)
    assert scaling.bias[1] - scaling.bias[0] == pytest.approx(1, abs=0.15)
    assert expected_calibration_error(scaling.probabilities(honest * 3 - [0.0, 3.0, 0.0]), labels) < 0.015


def test_a_row_without_weight_teaches_nothing() -> None:
    logits, labels = np.array([[2.0, 0.0], [2.0, 0.0], [0.0, 2.0]]), np.array([0, 1, 1])
    with_noise = fit(logits, labels, np.array([1.0, 0.0, 1.0]))
    without = fit(logits[[0, 2]], labels[[0, 2]], np.ones(2))
    assert with_noise.temperature == pytest.approx(without.temperature, rel=1e-6)


def test_the_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    sure = np.tile([0.9, 0.1], (10, 1))
    assert expected_calibration_error(sure, np.zeros(10, dtype=np.int64)) == pytest.approx(0.1)
    assert expected_calibration_error(sure, np.array([0] * 9 + [1])) == pytest.approx(0.0, abs=1e-9)


def test_an_operating_point_counts_hits_and_false_alarms() -> None:
    point = operating_point(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]), 0.75)
    assert (point.precision, point.recall, point.false_alarms) == (0.5, 0.5, 0.5)


def test_a_threshold_keeps_its_bound_on_false_alarms() -> None:
    rng = np.random.default_rng(1)
    positive = rng.random(4000) < 0.3
    scores = np.clip(rng.normal(0.35 + 0.3 * positive, 0.15), 0, 1)
    free = best_threshold(scores, positive, most_false_alarms=1.0)
    bound = best_threshold(scores, positive, most_false_alarms=0.02)
    assert bound.false_alarms <= 0.02 < free.false_alarms
    assert bound.threshold > free.threshold


def test_on_a_flat_peak_the_threshold_nearest_to_an_even_chance_is_taken() -> None:
    scores, positive = np.array([0.05, 0.1, 0.9, 0.95]), np.array([False, False, True, True])
    assert best_threshold(scores, positive, most_false_alarms=0.1).threshold == 0.5


def test_an_unreachable_bound_gives_the_fewest_false_alarms() -> None:
    point = best_threshold(np.ones(4), np.array([True, False, True, False]), most_false_alarms=0.0)
    assert point.false_alarms == 1.0


def test_scaled_probabilities_sum_to_one() -> None:
    probabilities = Scaling(0.5, (0.1, 0.0, -0.4)).probabilities(np.array([3.0, 2.0, 1.0], dtype=np.float32))
    assert probabilities.sum() == pytest.approx(1)
