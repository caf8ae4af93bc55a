"""A map of the classes: t-SNE of the mean feature of each (thesis 5.4.2, Figure 5.2)."""

from dataclasses import dataclass
from typing import ClassVar

from methods.evals.settings import Settings

SPLITS = ("train", "test")
SHOWN = ("images", "names")
ITERATIONS = 251  # of scikit-learn, at least: the first 250 exaggerate


@dataclass
class Tsne(Settings):
    """Means of the validation images of each class, 30 principal components of them, and t-SNE with a perplexity of 20,
    a rate of 200 and 5000 iterations: the thesis, 5.4.2."""

    name, title, place = "tsne", "map of the classes", 17
    no_percent = ("classes", "trustworthiness")
    drawn = ("show",)
    scores: ClassVar = {"trustworthiness": "trustworthiness", "classes": "classes"}
    split: str = "test"  # train | test
    components: int = 30  # as many as there can be where that is less
    perplexity: float = 20.0  # a third of the other classes where that is less
    rate: float = 200.0  # as scikit-learn counts it
    iterations: int = 5000
    show: str = "images"  # images | names: what stands for a class

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("split", self.split in SPLITS, "no such split", f"use {' or '.join(SPLITS)}")
        self.refuse_unless("show", self.show in SHOWN, "nothing of that name is shown", f"use {' or '.join(SHOWN)}")
        fix = f"give {ITERATIONS} or more"
        self.refuse_unless("iterations", self.iterations >= ITERATIONS, "t-SNE takes more", fix)
        self.refuse_unless("perplexity", self.perplexity >= 1, "fewer neighbours than one", "give 1 or more")
