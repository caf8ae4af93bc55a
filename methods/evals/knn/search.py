"""Weighted k-nearest-neighbour classification of frozen features (thesis 5.3.2, after Wu et al. 2018)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from methods.evals.knn.spec import KNN

WORK = 2 * 10**12  # multiply-adds between two safe points: about ten seconds of a rank's share of a node
BLOCK = 4096  # queries that faiss multiplies at once: chunks of whole blocks find the same to the last bit
ROWS = 8192  # normalised at once


@dataclass(frozen=True)
class Bank:
    """Features float32 [N, d] and labels int64 [N] of one split."""

    features: np.ndarray
    labels: np.ndarray


def search(
    train: Bank, test: Bank, *, neighbours: Sequence[int], classes: int, temperature: float = KNN.temperature
) -> Iterator[np.ndarray]:
    """How many of each of the `chunks` of `test` are classified right, int64 by number of neighbours: whoever asks for
    the next chunk may stop between two. One search serves all numbers.

    Features are L2-normalised; each of the nearest training samples votes for its label with weight
    exp(cosine / temperature). Exact search.
    """
    bank, queries = _normalised(train.features), _normalised(test.features)
    most = min(max(neighbours), len(bank))
    for chunk in chunks(train, test):
        similarity, index = faiss.knn(queries[chunk], bank, most, metric=faiss.METRIC_INNER_PRODUCT)
        # Subtracting the row's maximum changes no argmax and keeps exp finite.
        weights = np.exp((similarity - similarity.max(axis=1, keepdims=True)) / temperature)
        labels, rows = train.labels[index], np.arange(len(index))[:, None]
        found = {}
        for k in sorted(set(neighbours)):
            votes = np.zeros((len(index), classes))
            np.add.at(votes, (rows, labels[:, :k]), weights[:, :k])
            found[k] = (votes.argmax(axis=1) == test.labels[chunk]).sum()
        yield np.array([found[k] for k in neighbours])


def chunks(train: Bank, test: Bank) -> list[slice]:
    """`test` in parts of WORK each, whole blocks of faiss where WORK has room for them; the last has the rest, too,
    because faiss multiplies few queries in another order."""
    size = max(1, WORK // max(1, train.features.size))
    size -= size % BLOCK if size > BLOCK else 0
    count = max(1, len(test.features) // size)
    return [slice(n * size, (n + 1) * size if n < count - 1 else len(test.features)) for n in range(count)]


def _normalised(features: np.ndarray) -> np.ndarray:
    """Of unit length; some rows at a time, or numpy would copy them all twice to square them."""
    unit = np.empty(features.shape, np.float32)
    for start in range(0, len(features), ROWS):
        rows = features[start : start + ROWS]
        # By a power of two, which rounds nothing: squares of very large or small numbers are beyond float32.
        _, exponent = np.frexp(np.maximum(rows.max(1, keepdims=True), -rows.min(1, keepdims=True)))
        rows = rows * np.ldexp(np.float32(1), np.clip(-exponent, -126, 126))
        unit[start : start + ROWS] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit
