"""Spearman's correlation is scipy's, and the sentence says what it is worth."""

import random

import pytest
from scipy import stats

from launcher.report import trend


@pytest.mark.parametrize("seed", range(8))
def test_it_is_scipys_with_ties_too(seed):
    draw = random.Random(seed)
    xs, ys = ([draw.randrange(6) for _ in range(12)] for _ in range(2))
    assert trend.spearman(xs, ys) == pytest.approx(stats.spearmanr(xs, ys).statistic)
    assert trend.ranks(xs) == stats.rankdata(xs).tolist()


def test_two_points_or_equal_ones_have_none():
    assert trend.spearman([1, 2], [1, 2]) is None
    assert trend.spearman([1, 2, 3], [5, 5, 5]) is None


@pytest.mark.parametrize("points", [4, 6, 12])
def test_chance_is_the_share_of_orders_that_do_as_well(points):
    """Exact for few points; for many close to what drawing orders gives."""
    draw = random.Random(points)
    theirs, ours = [float(n) for n in range(points)], [float(n) + draw.gauss(0, points / 3) for n in range(points)]
    found = trend.of(theirs, [[value] for value in ours])
    drawn = [trend.spearman(theirs, draw.sample(ours, points)) >= found.rho - 1e-9 for _ in range(4000)]
    assert found.chance == pytest.approx(sum(drawn) / len(drawn), abs=0.03)


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ([1, 2, 3, 4], [[1], [2], [3], [4]], "The order of ours agrees with the paper's: "),
        ([1, 2, 3, 4], [[4], [3], [2], [1]], "The order of ours runs against the paper's: "),
        ([1, 2, 3, 4], [[2], [4], [1], [3]], "The order of ours does not follow the paper's: "),
        ([1, 2, 3], [[1], [], []], "No trend can be told: 1 point has both"),
        ([1, 2, 3], [[1], [2], []], "Ours and the paper's go the same way, which two points do by chance in half of "),
        ([1, 2], [[2], [1]], "Ours and the paper's go opposite ways, which two points do by chance in half of all "),
        ([1, 2], [[1], [1]], "No trend can be told: all of ours are equal."),
        ([5, 5, 5], [[1], [2], [3]], "No trend can be told: all of the paper's are equal."),
        ([None, None], [[1], [2]], "The paper prints no numbers"),
    ],
)
def test_the_verdict(theirs, ours, said):
    assert trend.of(theirs, ours).sentence.startswith(said)


def test_missing_points_are_counted():
    assert trend.of([1, 2, 3, None], [[1], [2], [3], []]).sentence.endswith("1 of 4 points have no number of ours.")


def test_a_difference_that_seeds_make_as_well_is_called_none():
    noisy = trend.of([1, 2, 3], [[10, 14], [11, 15], [12, 16]])
    assert noisy.noise == pytest.approx(8**0.5)
    assert "no difference that stands out" in noisy.sentence
    clear = trend.of([1, 2, 3], [[10, 10.1], [20, 20.1], [30, 30.1]])
    assert "no difference that stands out" not in clear.sentence
    assert "with one seed a point" in trend.of([1, 2, 3], [[1], [2], [3]]).sentence
