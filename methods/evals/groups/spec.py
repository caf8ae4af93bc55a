"""Entropy of the labels within groups (SMoG, Figure 5: 3,000 groups)."""

from dataclasses import dataclass
from typing import ClassVar

from methods.evals.settings import Settings


@dataclass
class GroupEntropy(Settings):
    """The groups are those of k-means of the backbone's features, for every method alike, not the prototypes that a
    method trained with."""

    name, title, place = "groups", "groups", 5
    scores: ClassVar = {
        "mean": "mean entropy of labels, nats",
        "median": "median entropy of labels, nats",
        "low": "share of low entropy",
        "use": "share of ln k in use",
        "groups": "number",
    }
    no_percent = tuple(scores)
    groups: int | None = None  # 3,000, or a tenth of the images where that is less
    iterations: int = 20

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("groups", self.groups != 1, "all images are in it", "give 2 or more")
