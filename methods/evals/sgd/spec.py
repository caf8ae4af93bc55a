"""A classifier of extracted features by SGD: one hidden layer, or with hidden=null none (Kolesnikov et al. 2019,
supplement 2).

sslrun eval RUN protocol=sgd
sslrun eval RUN protocol=sgd sgd.hidden=null sgd.epochs=520 'sgd.drops=[480,500]'
"""

from dataclasses import dataclass, field
from typing import ClassVar

from methods.evals.settings import Settings, SomeImages


@dataclass
class Sgd(SomeImages, Settings):
    """Their MLP: 1000 hidden units with a dropout of 0.5, 180 epochs in batches of 512 at a rate of 0.01, a tenth of it
    after 60 and 120, momentum 0.9, and the penalty of their logistic regression, 100 / (d classes)."""

    name, title, place = "sgd", "classifier by SGD", 8
    zero = ("dropout", "l2", "momentum")
    scores: ClassVar = {"top1": "top-1", "top5": "top-5", "train": "top-1 on what it learnt from"}
    hidden: int | None = 1000  # units; null: a linear classifier
    dropout: float = 0.5  # of the hidden units
    epochs: int = 180
    batch: int = 512  # images a step, over all ranks; all of them where there are fewer
    rate: float = 0.01  # of a step, whatever the batch
    drops: list[int] = field(default_factory=lambda: [60, 120])  # epochs from which on the rate is a tenth
    momentum: float = 0.9
    l2: float | None = None  # times |W|^2 of all weights, beside the mean loss; biases are free

    def check(self, backbone: str) -> None:
        super().check(backbone)
        for name in ("dropout", "momentum"):
            self.refuse_unless(name, getattr(self, name) < 1, "out of range", "give 0 to 0.99")
        self.refuse_unless("drops", len(set(self.drops)) == len(self.drops), "one comes twice", "leave one out")
