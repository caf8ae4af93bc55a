"""Features with more than one number a channel, for protocols that are asked for them (Kolesnikov et al. 2019)."""

import math
from typing import Any

import numpy as np
import torch

from methods.evals.pooled import encoder, has_map, width_of
from methods.evals.subject import Subject


class Pooled(Subject):
    """The same backbone and images; `features` are of its last map in cells x cells parts, extracted for the protocol
    called `name` alone, since other protocols want others."""

    def __init__(self, subject: Subject, name: str, cells: int):
        kept = {"step": subject.step, "keeps": subject.keeps}
        super().__init__(subject.job, subject.backbone, subject.weights, subject.known, **kept)
        self.so_far = subject.so_far
        self._name, self._cells = name, cells

    def features(self, split: str, among: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        if split not in self._made:
            with encoder(self.job.config.backbone, self.backbone, self._cells) as encode:
                kept = {"work": f"{self._name} {split}", "width": width_of(self.job, encode)}
                self._made[split] = self.extracted(split, encode, ["pool", self._cells], **kept)
        return super().features(split, among)


def seen(subject: Subject, settings: Any) -> Subject:
    """The subject as a protocol wants to see it, by its settings (`SomeCells`): itself, or with features in cells.
    Collective."""
    if not (settings.pool or settings.numbers):
        return subject
    name, backbone = settings.name, subject.job.config.backbone
    if not has_map(backbone):
        subject.job.notice(f"{name}: {backbone} has no map of channels to pool: it is judged by its usual features")
        return subject
    return Pooled(subject, name, settings.pool or cells_within(subject, settings))


def cells_within(subject: Subject, settings: Any) -> int:
    """How many cells a side give an image at most `settings.numbers` numbers; one where even that gives more."""
    with encoder(subject.job.config.backbone, subject.backbone, 1) as encode:
        channels = width_of(subject.job, encode)
    if channels > settings.numbers:
        subject.job.notice(f"{settings.name}: {channels} numbers an image, as the last map has so many channels")
    return max(1, math.isqrt(settings.numbers // channels))
