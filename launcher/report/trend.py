"""Does ours go as the paper's goes? Spearman's rank correlation, and what it is worth, in a sentence. Pure.

scipy.stats has both, but importing it takes 1.4 s, and `sslrun report` answers in less.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 3  # points; two are always in one order or the other
EXACT = 7  # points, whose 5,040 orders are counted; more are approximated
STRONG, WEAK = 0.8, 0.5


@dataclass(frozen=True)
class Trend:
    """`rho`: None where there is none. `chance`: how often a random order would agree at least as well."""

    points: int
    rho: float | None
    chance: float | None
    noise: float | None  # standard deviation between seeds of one point, pooled
    sentence: str


def of(theirs: Sequence[float | None], ours: Sequence[Sequence[float]]) -> Trend:
    """theirs: the paper's number of each point, None where it prints none. ours: our scores of it, one a seed."""
    means = [statistics.fmean(scores) if scores else None for scores in ours]
    both = [(p, m) for p, m in zip(theirs, means, strict=True) if p is not None and m is not None]
    rho = spearman([paper for paper, _ in both], [mean for _, mean in both])
    chance = _chance(both, rho) if rho is not None and rho > 0 else None
    noise = _pooled([scores for scores in ours if len(scores) > 1])
    known = [mean for mean in means if mean is not None]
    said = [_verdict(theirs, both, rho, chance), _size(known, noise), _absent(theirs, ours)]
    return Trend(len(both), rho, chance, noise, " ".join(filter(None, said)))


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Pearson's correlation of the ranks, equal values sharing the mean of theirs (Spearman 1904). None for fewer than
    LEAST pairs, and where all of one side are equal."""
    if len(xs) < LEAST:
        return None
    try:
        return max(-1.0, min(1.0, statistics.correlation(ranks(xs), ranks(ys))))
    except statistics.StatisticsError:
        return None


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; equal values share the mean of their ranks."""
    below = [sum(other < value for other in values) for value in values]
    return [low + (values.count(value) + 1) / 2 for low, value in zip(below, list(values), strict=True)]


def _chance(both: Sequence[tuple[float, float]], rho: float) -> float:
    """Share of the orders of ours that would correlate as well: exact for few points, else by the normal
    approximation, rho having a variance of 1 / (n - 1)."""
    if len(both) > EXACT:
        return 1 - statistics.NormalDist().cdf(rho * math.sqrt(len(both) - 1))
    theirs, ours = (ranks(side) for side in zip(*both, strict=True))
    reached = sum(a * b for a, b in zip(theirs, ours, strict=True))  # all else of rho is the same in every order
    orders = list(itertools.permutations(ours))
    as_well = sum(sum(a * b for a, b in zip(theirs, order, strict=True)) >= reached - 1e-9 for order in orders)
    return as_well / len(orders)


def _pooled(groups: Sequence[Sequence[float]]) -> float | None:
    degrees = sum(len(group) - 1 for group in groups)
    return math.sqrt(sum(statistics.variance(g) * (len(g) - 1) for g in groups) / degrees) if degrees else None


def _verdict(
    theirs: Sequence[float | None], both: Sequence[tuple[float, float]], rho: float | None, chance: float | None
) -> str:
    if all(paper is None for paper in theirs):
        return "The paper prints no numbers to compare with, so its claim is the measure."
    if len(both) == 2:
        return _of_two(both)
    if len(both) < LEAST:
        return f"No trend can be told: {_count(len(both))} both a number of the paper's and one of ours."
    if rho is None:
        return _equal(both)
    if rho >= STRONG:
        said = "The order of ours agrees with the paper's"
    elif rho >= WEAK:
        said = "The order of ours agrees with the paper's in part"
    elif rho > -WEAK:
        said = "The order of ours does not follow the paper's"
    else:
        said = "The order of ours runs against the paper's"
    written = f"{rho:.2f}".replace("-", "−")
    lucky = f"; a random order does as well in {_percent(chance)} of cases" if chance is not None else ""
    return f"{said}: Spearman's rank correlation is {written} over {len(both)} points{lucky}."


def _of_two(both: Sequence[tuple[float, float]]) -> str:
    """Two have no correlation worth the name, but a direction."""
    (paper, mean), (other_paper, other_mean) = both
    if paper == other_paper or mean == other_mean:
        return _equal(both)
    way = "the same way" if (paper < other_paper) == (mean < other_mean) else "opposite ways"
    return f"Ours and the paper's go {way}, which two points do by chance in half of all cases."


def _equal(both: Sequence[tuple[float, float]]) -> str:
    side = "ours" if len({mean for _, mean in both}) == 1 else "the paper's"
    return f"No trend can be told: all of {side} are equal."


def _size(means: Sequence[float], noise: float | None) -> str:
    """Whether the differences between points are more than those between seeds."""
    if len(means) < 2:
        return ""
    span = max(means) - min(means)
    if noise is None:
        return f"Ours range over {span:.2g}; with one seed a point nobody knows how much of that is noise."
    said = f"Ours range over {span:.2g}, and seeds of one point scatter by {noise:.2g} (standard deviation)"
    return f"{said}: the axis makes no difference that stands out." if span <= 2 * noise else f"{said}."


def _absent(theirs: Sequence[float | None], ours: Sequence[Sequence[float]]) -> str:
    absent = sum(not scores for scores in ours)
    return f"{absent} of {len(theirs)} points have no number of ours." if absent else ""


def _count(points: int) -> str:
    return f"{points} point has" if points == 1 else f"{points or 'no'} points have"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"
