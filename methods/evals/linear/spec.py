"""A linear classifier by SGD on frozen features of random crops and flips (thesis 5.3.2)."""

from dataclasses import dataclass, field
from typing import ClassVar

from methods.evals.settings import Settings


@dataclass
class Linear(Settings):
    """Epochs, batch, momentum and no weight decay as in the released code of DINO; its rates, as SwAV's 0.3, lie within
    ours."""

    name, title, place, zero = "linear", "linear probe", 2, ("weight_decay", "momentum")
    scores: ClassVar = {
        "top1": "top-1 (the best rate on the test split)",
        "top5": "top-5",
        "rate": "that rate",
        "steps": "steps",
    }
    no_percent, usual_batch = ("rate", "steps"), 1024
    epochs: int = 100
    batch: int | None = None  # images a step, over all ranks; null: 1024, or an eighth of the images if fewer
    rates: list[float] = field(default_factory=lambda: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0])  # at 256
    momentum: float = 0.9
    weight_decay: float = 0.0
    crop_scale: list[float] = field(default_factory=lambda: [0.08, 1.0])  # share of the area, torchvision's default

    def check(self, backbone: str) -> None:
        super().check(backbone)
        scale = self.crop_scale
        fits = len(scale) == 2 and scale[0] <= scale[1] <= 1
        self.refuse_unless("crop_scale", fits, "no range of shares of the area", "give two numbers, 0 < a <= b <= 1")
        self.refuse_unless("momentum", self.momentum < 1, "out of range", "give 0 to 0.99")
        self.refuse_unless("rates", len(set(self.rates)) == len(self.rates), "one comes twice", "leave one out")
