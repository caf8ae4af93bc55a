"""A probe on every stage of the backbone, averaged over its map (Kolesnikov et al. 2019, Table 1, and ClusterFit's
Figure 4 look at layers so; both keep more than the average)."""

from dataclasses import dataclass

from methods.evals.settings import Settings

PROBES = ("logistic", "knn")


@dataclass
class Layers(Settings):
    name, title, place, zero, later = "layers", "stage", 4, ("l2",), ("stages",)
    probe: str = "logistic"  # logistic | knn
    stages: list[str] | None = None  # by the names of the scores; null: all
    iterations: int = 200  # of logistic
    l2: float | None = None
    neighbours: int = 20  # of knn

    def gathers(self) -> bool:
        return self.probe == "knn"

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("probe", self.probe in PROBES, "no such probe", f"use {' or '.join(PROBES)}")
