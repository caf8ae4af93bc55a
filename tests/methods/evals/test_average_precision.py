"""Average precision against scikit-learn's, and the rule of VOC 2007 against its definition in whole numbers."""

from fractions import Fraction

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from methods.evals.average_precision import area, by_class, eleven_points


def drawn(seed, count=60, ties=False):
    rng = np.random.default_rng(seed)
    truth = rng.choice([-1, 0, 1], size=count, p=[0.6, 0.1, 0.3])
    scores = rng.normal(size=count) + 0.7 * truth
    return truth, np.round(scores, 0 if ties else 9)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_what_scikit_learn_finds_among_those_that_count(seed, ties):
    truth, scores = drawn(seed, ties=ties)
    counted = truth != 0
    expected = average_precision_score(truth[counted] > 0, scores[counted])
    assert area(truth, scores) == pytest.approx(expected, rel=1e-12)


def written_out(truth, scores):
    """p(t) = the best precision at a recall of t or more, for each threshold apart."""
    there, scores = [int(t > 0) for t in truth if t], [s for t, s in zip(truth, scores, strict=True) if t]
    curve = []
    for threshold in set(scores):
        taken = [t for t, s in zip(there, scores, strict=True) if s >= threshold]
        curve.append((Fraction(sum(taken), sum(there)), Fraction(sum(taken), len(taken))))
    points = [max(p for r, p in curve if r >= Fraction(t, 10)) for t in range(11)]
    return float(sum(points) / 11)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_eleven_points_are_those_of_the_definition(seed, ties):
    truth, scores = drawn(seed, ties=ties)
    assert eleven_points(truth, scores) == pytest.approx(written_out(truth, scores), rel=1e-12)


def test_a_recall_of_exactly_a_point_reaches_it():
    """Three of ten found are a recall of 0.3, though 3 * 0.1 is more in floating point."""
    truth = np.array([1] * 3 + [-1] * 27 + [1] * 7)
    scores = -np.arange(len(truth), dtype=float)
    assert eleven_points(truth, scores) == pytest.approx((4 * 1.0 + 7 * Fraction(10, 37)) / 11, rel=1e-12)
    assert eleven_points(truth, scores) != pytest.approx(area(truth, scores), rel=1e-3)


def test_a_class_that_is_nowhere_has_none():
    truth = np.array([[1, -1], [-1, 0]])
    found = by_class(truth, np.array([[2.0, 2.0], [1.0, 1.0]]), "voc07")
    assert found[0] == 1 and np.isnan(found[1])
