"""Average precision of a class: by the rule of PASCAL VOC 2007, and as the area under the precision-recall curve."""

import numpy as np

POINTS = 11  # recalls 0, 0.1, ..., 1


def eleven_points(truth: np.ndarray, scores: np.ndarray) -> float:
    """The mean over recalls 0, 0.1, ..., 1 of the best precision at that recall or a higher one (Everingham et al.
    2010, 4.2). truth: [N], 1 there, -1 not there, 0 not counted; scores: [N]. From 0 to 1, NaN where none is there."""
    found, looked_at = _curve(truth, scores)
    if not len(found):
        return float("nan")
    best = np.maximum.accumulate((found / looked_at)[::-1])[::-1]
    # In whole numbers: 0.1 + 0.2 is more than 0.3.
    first = [np.argmax((POINTS - 1) * found >= point * found[-1]) for point in range(POINTS)]
    return float(best[first].mean())


def area(truth: np.ndarray, scores: np.ndarray) -> float:
    """The sum over thresholds of precision times what recall gains, as scikit-learn's average_precision_score has it;
    arguments and range as in `eleven_points`."""
    found, looked_at = _curve(truth, scores)
    if not len(found):
        return float("nan")
    return float((np.diff(found, prepend=0) / found[-1] * (found / looked_at)).sum())


RULE = {"voc07": eleven_points, "area": area}


def by_class(truth: np.ndarray, scores: np.ndarray, rule: str) -> np.ndarray:
    """float64 [classes], of `truth` and `scores` [N, classes], by a `rule` of RULE."""
    return np.array([RULE[rule](*columns) for columns in zip(truth.T, scores.T, strict=True)])


def _curve(truth: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64: (how many that are there, how many at all) have a score of at least each threshold, from the highest down;
    equal scores come in together, so that no order among them counts. Empty where none is there."""
    counted = truth != 0
    there, scores = truth[counted] > 0, scores[counted]
    if not there.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)  # of each group of equal ones
    return np.cumsum(there[order])[last], last + 1
