"""Multinomial logistic regression by L-BFGS on features of centre crops (Kolesnikov et al. 2019, supplement 2)."""

from dataclasses import dataclass
from typing import ClassVar

from methods.evals.settings import Settings, SomeImages


@dataclass
class Logistic(SomeImages, Settings):
    """At most 800 updates, and a penalty l2 |W|^2 beside the mean loss, by default 100 / (d classes)."""

    name, title, place, zero = "logistic", "logistic regression", 3, ("l2",)
    scores: ClassVar = {"top1": "top-1", "top5": "top-5", "train": "top-1 on what it was fitted to"}
    iterations: int = 800
    l2: float | None = None
