"""Multinomial logistic regression by L-BFGS on features of centre crops (Kolesnikov et al. 2019, supplement 2)."""

from dataclasses import dataclass, field
from typing import ClassVar

from methods.evals.settings import Settings, SomeCells, SomeImages, SomeTrials


@dataclass
class Logistic(SomeImages, SomeCells, SomeTrials, Settings):
    """At most 800 updates, and a penalty l2 |W|^2 beside the mean loss, by default 100 / (d classes). A search draws l2
    log-uniformly; its range is ours."""

    name, title, place = "logistic", "logistic regression", 3
    zero, later = ("l2", "pool", "numbers", "trials"), ("pool", "numbers", "trials", "l2_range")
    scores: ClassVar = {
        "top1": "top-1",
        "top5": "top-5",
        "train": "top-1 on what it was fitted to",
        "held_out": "top-1 on what was held out",
    }
    iterations: int = 800
    l2: float | None = None
    l2_range: list[float] = field(default_factory=lambda: [1e-8, 1.0])
