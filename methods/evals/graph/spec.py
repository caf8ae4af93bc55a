"""Edges within a class in the graph of nearest neighbours (Caron, PhD thesis 2021, Table 3.4)."""

from dataclasses import dataclass
from typing import ClassVar

from methods.evals.settings import Settings

SPLITS = ("train", "test")
MOST_PICTURES = 100  # one picture holds them all


@dataclass
class NeighbourGraph(Settings):
    """The table says of its graph neither how many neighbours nor which images. The one graph that the thesis builds
    joins each training image to 5 others, by Euclidean distance of L2-normalised descriptors (3.2.1, 3.2.2)."""

    name, title, place, zero = "graph", "nearest neighbours", 9, ("pictures",)
    drawn = ("pictures",)
    scores: ClassVar = {"within": "edges within a class", "chance": "of edges at random"}
    neighbours: int = 5
    split: str = "train"  # train | test
    pictures: int = 0  # images shown with their neighbours

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("split", self.split in SPLITS, "no such split", f"use {' or '.join(SPLITS)}")
        few = self.pictures <= MOST_PICTURES
        self.refuse_unless("pictures", few, "one file holds them all", f"give {MOST_PICTURES} at most")
