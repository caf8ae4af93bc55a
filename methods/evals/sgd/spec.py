"""A classifier of extracted features by SGD: one hidden layer, or with hidden=null none (Kolesnikov et al. 2019,
supplement 2). Rate and penalty can be searched for (Sariyildiz et al. 2020, supplement).

sslrun eval RUN protocol=sgd
sslrun eval RUN protocol=sgd sgd.hidden=null sgd.epochs=520 'sgd.drops=[480,500]' sgd.numbers=9000
sslrun eval RUN protocol=sgd sgd.hidden=null sgd.trials=25 sgd.schedule=cosine sgd.batch=1024
"""

from dataclasses import dataclass, field
from typing import ClassVar

from methods.evals.settings import Settings, SomeCells, SomeImages, SomeTrials

SCHEDULES = ("drops", "cosine")


@dataclass
class Sgd(SomeImages, SomeCells, SomeTrials, Settings):
    """Kolesnikov et al.'s MLP: 1000 hidden units with a dropout of 0.5, 180 epochs in batches of 512 at a rate of 0.01,
    a tenth of it after 60 and 120, momentum 0.9, and the penalty of their logistic regression, 100 / (d classes). The
    ranges of a search are Sariyildiz et al.'s: rates log-uniform, weight decays, twice l2, uniform from 0 to 1e-5."""

    name, title, place = "sgd", "classifier by SGD", 8
    zero = ("dropout", "l2", "momentum", "pool", "numbers", "trials", "l2_range")
    empty = ("drops",)
    later = ("pool", "numbers", "trials", "rate_range", "l2_range", "schedule")
    scores: ClassVar = {
        "top1": "top-1",
        "top5": "top-5",
        "train": "top-1 on what it learnt from",
        "held_out": "top-1 on what was held out",
        "rate": "rate of the best trial",
        "l2": "its penalty",
        "steps": "steps",
    }
    no_percent, usual_batch = ("rate", "l2", "steps"), 512
    hidden: int | None = 1000  # units; null: a linear classifier
    dropout: float = 0.5  # of the hidden units
    epochs: int = 180
    batch: int | None = None  # images a step, over all ranks; null: 512, or an eighth of the images if fewer
    rate: float = 0.01  # of a step, whatever the batch
    drops: list[int] = field(default_factory=lambda: [60, 120])  # epochs from which on the rate is a tenth
    momentum: float = 0.9
    l2: float | None = None  # times |W|^2 of all weights, beside the mean loss; biases are free
    schedule: str = "drops"  # drops | cosine, from `rate` to 0
    rate_range: list[float] = field(default_factory=lambda: [0.1, 100.0])
    l2_range: list[float] = field(default_factory=lambda: [0.0, 5e-6])

    def check(self, backbone: str) -> None:
        super().check(backbone)
        for name in ("dropout", "momentum"):
            self.refuse_unless(name, getattr(self, name) < 1, "out of range", "give 0 to 0.99")
        self.refuse_unless("drops", len(set(self.drops)) == len(self.drops), "one comes twice", "leave one out")
        fix = f"use {' or '.join(SCHEDULES)}"
        self.refuse_unless("schedule", self.schedule in SCHEDULES, "no such schedule", fix)
        if self.drops != Sgd().drops:  # which a shorter training simply does not come to
            reached = max(self.drops, default=0) < self.epochs
            reason = f"one comes after the end, with {self.epochs} epochs"
            self.refuse_unless("drops", reached, reason, f"give epochs from 1 to {self.epochs - 1}, or [] for none")
            falls = self.schedule == "drops"
            self.refuse_unless("drops", falls, f"schedule={self.schedule} has none", "leave one out")
