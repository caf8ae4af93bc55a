"""Search for landmarks by frozen features (thesis Table 5.3; Radenovic et al. 2018, revisited Oxford and Paris)."""

from dataclasses import dataclass, field
from typing import ClassVar

from methods.evals.settings import Settings


@dataclass
class Retrieval(Settings):
    """As the released evaluation of DINO, with its line for Paris; that for Oxford has 224 pixels and one scale."""

    name, title, place = "retrieval", "retrieval", 11
    needs: ClassVar = ("queries",)
    scores: ClassVar = {
        "medium": "mAP, medium",
        "hard": "mAP, hard",
        "medium_p10": "mP@10, medium",
        "hard_p10": "mP@10, hard",
    }
    size: int = 512  # pixels of an image's longer side, at most
    scales: list[float] = field(default_factory=lambda: [1.0, 0.5**0.5, 0.5])  # features are added up over them
    crop: bool = False  # queries to their box, as the data set's authors ask; DINO's code does not

    def check(self, backbone: str) -> None:
        super().check(backbone)
        self.refuse_unless("scales", max(self.scales) <= 4, "larger than is useful", "give scales up to 4")
