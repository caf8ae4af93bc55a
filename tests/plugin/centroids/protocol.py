"""Nearest class means of features that lie on several ranks."""

import torch
from torch.nn.functional import normalize

from centroids.spec import Centroids
from methods.evals.subject import Subject, percent


def score(subject: Subject, settings: Centroids) -> dict[str, float]:
    """`top1` in percent, on the test split. Collective."""
    features, labels = _prepared(subject, settings, "train")
    width = features.shape[1]
    sums = torch.zeros(subject.classes, width + 1, dtype=torch.float64)  # and how many there are
    sums.index_add_(0, labels, torch.cat([features, torch.ones(len(features), 1, dtype=torch.float64)], 1))
    sums = subject.sum(sums.to(subject.job.world.device)).cpu()
    means = sums[:, :width] / sums[:, width:]  # of a class without images no number, to which nothing is near
    features, labels = _prepared(subject, settings, "test")
    distances = torch.cdist(features, means).nan_to_num(nan=torch.inf)
    right = torch.stack([(distances.argmin(1) == labels).sum(), torch.tensor(len(labels))])
    return {"top1": percent(*subject.sum(right.to(subject.job.world.device)).tolist())}


def _prepared(subject: Subject, settings: Centroids, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(float64 [n, d], int64 [n]) of this rank."""
    features, labels = subject.features(split)
    return normalize(features.double(), dim=1) if settings.normalise else features.double(), labels
