"""Nearest class means: each image of the test split goes to the class whose mean feature is nearest."""

from dataclasses import dataclass
from typing import ClassVar

from methods.evals.settings import Settings


@dataclass
class Centroids(Settings):
    """Features have length one unless they are to stay as they are."""

    name, title = "centroids", "nearest class mean"
    scores: ClassVar = {"top1": "top-1"}
    normalise: bool = True
