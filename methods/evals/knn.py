"""Weighted k-nearest-neighbour classification of frozen features (thesis 5.3.2, after Wu et al. 2018)."""

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
    """Share of `test` classified right, 0 to 1.

    Features are L2-normalised; each of the `neighbours` nearest training samples votes for its label with weight
    exp(cosine / 0.07). Exact search.
    """
    bank, queries = _normalised(train.features), _normalised(test.features)
    neighbours = min(neighbours, len(bank))
    similarity, index = faiss.knn(queries, bank, neighbours, metric=faiss.METRIC_INNER_PRODUCT)
    votes = np.zeros((len(queries), classes))
    # Subtracting the row's maximum changes no argmax and keeps exp finite.
    weights = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / TEMPERATURE)
    np.add.at(votes, (np.arange(len(queries))[:, None], train.labels[index]), weights)
    return float((votes.argmax(axis=1) == test.labels).mean())


def _normalised(features: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.ascontiguousarray(features / np.maximum(norms, 1e-12), dtype=np.float32)
