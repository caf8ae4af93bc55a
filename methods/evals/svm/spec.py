"""One-versus-all linear support vector machines on features of centre crops (Goyal et al. 2019; thesis Figure 3.11,
Tables 3.1 and 4.2)."""

from dataclasses import dataclass, field
from typing import ClassVar

from methods.evals.settings import Settings

RULES = ("voc07", "area")
MOST_FOLDS = 100


@dataclass
class SVM(Settings):
    """Costs, folds and iterations as in VISSL's configuration for VOC07, 2 x 2 cells of the last map as in all of the
    papers. trials: draw so many costs log-uniformly from 1e-5 to 1e5 in place of `costs`, the range and the 40 of
    Sariyildiz et al. 2020 (whose draws are Optuna's)."""

    name, title, place, zero, needs = "svm", "linear SVM", 7, ("trials",), ("label", "tags")
    scores: ClassVar = {"map": "mAP", "top1": "top-1"}
    costs: list[float] = field(default_factory=lambda: [0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1e3])
    trials: int = 0
    folds: int = 3  # of the cross-validation that chooses the cost of each class
    iterations: int = 2000
    pool: int = 2  # cells a side of the last map
    rule: str = "voc07"  # voc07 | area

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("rule", self.rule in RULES, "no such rule", f"use {' or '.join(RULES)}")
        self.refuse_unless("folds", 1 < self.folds <= MOST_FOLDS, "out of range", f"give 2 to {MOST_FOLDS}")
