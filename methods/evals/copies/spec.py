"""Copies traced to their originals by whitened frozen features (thesis Table 5.4; Copydays, Douze et al. 2009)."""

from dataclasses import dataclass
from typing import ClassVar

from methods.evals.settings import Settings


@dataclass
class Copies(Settings):
    """As the released evaluation of DINO on Copydays."""

    name, title, place = "copies", "copy detection", 12
    needs: ClassVar = ("copies",)
    scores: ClassVar = {"map": "mAP", "unwhitened": "mAP, not whitened"}
    size: int = 320  # pixels a side: images are made square (thesis: 224 with patches of 16 pixels)
    power: float = 4.0  # of the generalised mean over the last map
    found: int = 20  # that are looked at of a ranking
