"""Weighted nearest neighbours (thesis 5.3.2, after Wu et al. 2018)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from methods.evals.settings import Settings, SomeImages


@dataclass
class KNN(SomeImages, Settings):
    """The released code of DINO tries these k; the temperature is Wu et al.'s, and DINO's."""

    name, title, place, no_percent = "knn", "k-NN", 1, ("rank",)
    later = ("share", "subset")
    scores: ClassVar = {
        "trained": "trained",
        "untrained": "same network untrained",
        "untrained_adapted": "untrained, batch statistics of the data",
        "raw_pixels": "raw pixels",
        "rank": "effective rank of its features",
    }
    neighbours: list[int] = field(default_factory=lambda: [10, 20, 100, 200])
    temperature: float = 0.07

    @classmethod
    def shown(cls, scores: Mapping[str, Any]) -> Mapping[str, str]:
        several = {key: f"{key[1:]} neighbours" for key in scores if key.startswith("k") and key[1:].isdigit()}
        return cls.scores | several

    def gathers(self) -> bool:
        return True
