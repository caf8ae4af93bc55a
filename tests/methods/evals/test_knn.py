"""Weighted k-NN (thesis 5.3.2) against its definition in double precision, and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from methods.evals.knn import protocol
from methods.evals.knn import search as knn
from methods.evals.knn.search import BLOCK, WORK, Bank, chunks, search
from methods.evals.knn.spec import KNN

TEMPERATURE = KNN.temperature

CLASSES = 5


def banks(seed=0, noise=1.2, d=12):
    """Overlapping blobs: about half of the test samples are classified right."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, d))
    made = []
    for count in (230, 90):
        labels = rng.integers(CLASSES, size=count)
        features = (centres[labels] + noise * rng.normal(size=(count, d))) * rng.uniform(0.1, 9, size=(count, 1))
        made.append(Bank(features.astype(np.float32), labels))
    return made


def accuracy(train, test, *, neighbours, classes):
    """Share of `test` that is classified right."""
    return float(sum(search(train, test, neighbours=[neighbours], classes=classes))[0] / len(test.labels))


def by_definition(train, test, neighbours):
    """One query at a time: each of the nearest votes for its label with exp(cosine / T)."""
    cosine = lambda a, b: float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))  # noqa: E731
    right = 0
    for query, truth in zip(test.features.astype(np.float64), test.labels, strict=True):
        samples = zip(train.features.astype(np.float64), train.labels, strict=True)
        near = sorted(((cosine(query, x), y) for x, y in samples), reverse=True)
        votes = dict.fromkeys(range(CLASSES), 0.0)
        for similarity, label in near[:neighbours]:
            votes[int(label)] += math.exp(similarity / TEMPERATURE)
        right += max(votes, key=votes.get) == truth
    return right / len(test.labels)


@pytest.mark.parametrize("neighbours", [1, 5, 20, 230])
def test_it_is_what_the_definition_gives(neighbours):
    train, test = banks()
    found = accuracy(train, test, neighbours=neighbours, classes=CLASSES)
    assert found == pytest.approx(by_definition(train, test, neighbours))
    assert 0.3 < found < 0.95


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_scikit_learn_gives(seed):
    train, test = banks(seed)
    weights = lambda distance: np.exp((1 - distance) / TEMPERATURE)  # noqa: E731
    theirs = KNeighborsClassifier(20, weights=weights, metric="cosine", algorithm="brute")
    theirs.fit(train.features.astype(np.float64), train.labels)
    expected = theirs.score(test.features.astype(np.float64), test.labels)
    assert accuracy(train, test, neighbours=20, classes=CLASSES) == pytest.approx(expected)


def test_more_neighbours_than_samples_are_all_of_them():
    train, test = banks()
    all_of_them = accuracy(train, test, neighbours=len(train.labels), classes=CLASSES)
    assert accuracy(train, test, neighbours=10_000, classes=CLASSES) == all_of_them


@pytest.mark.parametrize("scale", [1000, 2.0**66, 2.0**-90])
def test_the_scale_of_a_feature_does_not_matter(scale):
    """Of numbers that fp32 has, although not their squares, too."""
    train, test = banks()
    scaled = Bank(train.features * np.float32(scale), train.labels)
    assert accuracy(scaled, test, neighbours=20, classes=CLASSES) == accuracy(
        train, test, neighbours=20, classes=CLASSES
    )


def test_features_of_nothing_but_zeros_are_no_error():
    train, test = banks()
    dead = Bank(np.zeros_like(test.features), test.labels)
    assert 0 <= accuracy(train, dead, neighbours=20, classes=CLASSES) <= 1


def test_a_search_in_chunks_of_whole_blocks_is_the_whole_search_to_the_last_bit(monkeypatch):
    rng = np.random.default_rng(0)
    train, test = (Bank(rng.normal(size=(n, 64)).astype(np.float32), rng.integers(5, size=n)) for n in (300, 9000))
    seen, one = [], knn.faiss.knn
    monkeypatch.setattr(knn.faiss, "knn", lambda *given, **how: seen.append(one(*given, **how)) or seen[-1])
    whole = accuracy(train, test, neighbours=20, classes=5)
    monkeypatch.setattr(knn, "WORK", 300 * 64 * (BLOCK + 9))
    assert accuracy(train, test, neighbours=20, classes=5) == whole
    (expected, *parts), counts = seen, [len(similarity) for similarity, _ in seen]
    assert counts == [9000, BLOCK, 9000 - BLOCK]
    for value, pieces in zip(expected, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(pieces), value)


def test_small_chunks_give_what_the_definition_gives(monkeypatch):
    train, test = banks()
    monkeypatch.setattr(knn, "WORK", 7 * train.features.size)
    assert len(chunks(train, test)) == 90 // 7
    assert accuracy(train, test, neighbours=20, classes=CLASSES) == pytest.approx(by_definition(train, test, 20))


@pytest.mark.parametrize("d", [12, 384, 2048, 10_240])
def test_no_chunk_of_imagenet_takes_long_and_none_is_left_out(d):
    train, test = (Bank(np.broadcast_to(np.float32(0), (n, d)), np.empty(0)) for n in (1_281_167, 50_000))
    parts = chunks(train, test)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(50_000))
    assert max(part.stop - part.start for part in parts) * train.features.size < 2 * WORK


def test_a_share_of_the_images_votes_and_has_no_baselines_of_all(evaluated, monkeypatch):
    seen = []

    def searched(job, banks, neighbours, **how):
        seen.append(banks)
        return whole(job, banks, neighbours, **how)

    whole = protocol.searched
    monkeypatch.setattr(protocol, "searched", searched)
    asked = ("protocol=knn", "eval_data=photos", "eval_data.images=380", "knn.neighbours=[3]")
    every, some = (evaluated.scores(*asked, f"knn.share={share}")["knn"] for share in (1, 0.25))
    assert set(some) == {"trained", "k3", "rank"} and "raw_pixels" in every
    train, test = seen[-1]
    assert np.bincount(train.labels).tolist() == [5] * 19 and len(test.labels) == 95
    expected = sum(search(train, test, neighbours=[3], classes=19, temperature=TEMPERATURE))[0]
    assert some["k3"] == round(100 * expected / 95, 2)
