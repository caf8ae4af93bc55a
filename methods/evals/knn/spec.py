"""Weighted nearest neighbours (thesis 5.3.2, after Wu et al. 2018)."""

from dataclasses import dataclass, field

from methods.evals.settings import Settings


@dataclass
class KNN(Settings):
    """The released code of DINO tries these k; the temperature is Wu et al.'s, and DINO's."""

    name, place = "knn", 1
    neighbours: list[int] = field(default_factory=lambda: [10, 20, 100, 200])
    temperature: float = 0.07

    def gathers(self) -> bool:
        return True
