"""Zero-shot classification by a bilinear function of features and attributes of classes (Sariyildiz et al. 2020,
supplement C, Equations 1 to 4 and Table 3).

sslrun eval RUN protocol=zeroshot eval_data=cub eval_data.path=/data/birds
"""

from dataclasses import dataclass, field
from typing import ClassVar

from methods.evals.settings import Settings

SOFTMAX = ("seen", "all")
MOST_FOLDS = 100


@dataclass
class Zeroshot(Settings):
    """The paper says neither how Equation 3 is minimised nor by which penalty. Here by L-BFGS, with a penalty
    l2 |Sigma|^2 beside the mean loss that is chosen by cross-validation: of seen classes, a part of which is held out
    as if they were unseen. 2 x 2 cells of the last map make some 9,000 numbers, as theirs."""

    name, title, place, needs, zero = "zeroshot", "zero-shot from attributes", 16, ("attributes",), ("l2",)
    scores: ClassVar = {
        "top1": "top-1 among all classes",
        "seen": "seen",
        "unseen": "unseen",
        "harmonic": "harmonic mean",
        "zero_shot": "unseen among themselves",
    }
    l2: list[float] = field(default_factory=lambda: [1e-6, 1e-5, 1e-4, 1e-3, 1e-2])  # one alone is taken as it is
    folds: int = 3  # parts of the seen classes, each of which is held out in turn
    iterations: int = 200  # of L-BFGS, at most
    pool: int = 2  # cells a side of the last map
    softmax: str = "seen"  # seen | all: the classes in Equation 4's sum

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("softmax", self.softmax in SOFTMAX, "no such classes", f"use {' or '.join(SOFTMAX)}")
        self.refuse_unless("folds", 1 < self.folds <= MOST_FOLDS, "out of range", f"give 2 to {MOST_FOLDS}")
        self.refuse_unless("l2", len({*self.l2}) == len(self.l2), "one comes twice", "leave one out")
