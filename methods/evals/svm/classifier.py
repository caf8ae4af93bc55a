"""One class against all others: the cost by cross-validation, then the machine (Goyal et al. 2019; VISSL's
svm_trainer.py)."""

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from methods.evals.average_precision import area


class OneAgainstAll:
    """The fits of one class, one a `step`, from 0 to `steps` - 1; then there are `weight` float64 [d + 1], the last of
    which is the bias, and the `cost` that it was fitted with.

    The cost is the first of those with the best average precision, mean over the folds; folds without the class on
    either side tell nothing. A class that is on no image gives every image the score -1, and one that is on all 1.
    """

    def __init__(
        self, rows: np.ndarray, there: np.ndarray, costs: Sequence[float], *, folds: int, iterations: int, seed: int
    ):
        """rows: float64 [n, d], of unit length; there: bool [n]; seed: 0 to 2^32 - 1, of the order in which the dual's
        coordinates are taken."""
        self._rows, self._truth = rows, np.where(there, 1, -1)
        self._costs, self._iterations, self._seed = costs, iterations, seed
        self._folds = _folds(self._truth, folds)
        self._count = folds
        self.precision = np.zeros((len(costs), max(1, len(self._folds))))  # of each cost on each fold that tells
        self.steps = steps(costs, folds)
        self.weight, self.cost = np.append(np.zeros(rows.shape[1]), 1.0 if there.all() else -1.0), float(costs[0])

    def step(self, number: int) -> None:
        if number < self.steps - 1:
            cost, fold = divmod(number, self._count)
            if fold < len(self._folds):
                learnt, held_out = self._folds[fold]
                found = self._fitted(self._costs[cost], learnt)
                self.precision[cost, fold] = area(self._truth[held_out], found.decision_function(self._rows[held_out]))
            return
        self.cost = float(self._costs[int(self.precision.mean(axis=1).argmax())])
        if len(np.unique(self._truth)) == 2:
            found = self._fitted(self.cost, slice(None))
            self.weight = np.append(found.coef_[0], found.intercept_[0])

    def _fitted(self, cost: float, chosen: np.ndarray | slice) -> LinearSVC:
        machine = LinearSVC(
            C=cost,
            penalty="l2",
            loss="squared_hinge",
            dual=True,
            class_weight={1: 2, -1: 1},
            max_iter=self._iterations,
            random_state=self._seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # at large costs it is usual, and others are chosen
            return machine.fit(self._rows[chosen], self._truth[chosen])


def steps(costs: Sequence[float], folds: int) -> int:
    """How many fits a class takes."""
    return len(costs) * folds + 1


def _folds(truth: np.ndarray, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(positions to learn from, positions held out) of each fold that can tell costs apart, stratified, in order."""
    sizes = [(truth == side).sum() for side in (-1, 1)]
    if max(sizes) < count:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds
        found = list(StratifiedKFold(count).split(truth[:, None], truth))
    return [(a, b) for a, b in found if len(np.unique(truth[a])) == 2 and (truth[b] == 1).any()]
