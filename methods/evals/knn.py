"""Weighted k-nearest-neighbour classification of frozen features (thesis 5.3.2, after Wu et al. 2018)."""

from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

TEMPERATURE = 0.07  # Wu et al. 2018, and the released code of DINO


@dataclass(frozen=True)
class Bank:
    """Features float32 [N, d] and labels int64 [N] of one split."""

    features: np.ndarray
    labels: np.ndarray


def accuracy(train: Bank, test: Bank, *, neighbours: int, classes: int) -> float:
    """As `accuracies`, of one number of neighbours."""
    return accuracies(train, test, neighbours=[neighbours], classes=classes)[0]


def accuracies(
    train: Bank, test: Bank, *, neighbours: Sequence[int], classes: int, temperature: float = TEMPERATURE
) -> list[float]:
    """Share of `test` classified right, 0 to 1, by each number of neighbours; one search serves them all.

    Features are L2-normalised; each of the nearest training samples votes for its label with weight
    exp(cosine / temperature). Exact search.
    """
    bank, queries = _normalised(train.features), _normalised(test.features)
    most = min(max(neighbours), len(bank))
    similarity, index = faiss.knn(queries, bank, most, metric=faiss.METRIC_INNER_PRODUCT)
    # Subtracting the row's maximum changes no argmax and keeps exp finite.
    weights = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
    labels, rows = train.labels[index], np.arange(len(queries))[:, None]
    found = {}
    for k in sorted(set(neighbours)):
        votes = np.zeros((len(queries), classes))
        np.add.at(votes, (rows, labels[:, :k]), weights[:, :k])
        found[k] = float((votes.argmax(axis=1) == test.labels).mean())
    return [found[k] for k in neighbours]


def _normalised(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(norms, 1e-12), dtype=np.float32)
