"""Label noise is that of ClusterFit's control experiment, footnote 2, and a function of (seed, sample) alone."""

import numpy as np
import pytest

from methods.supervised.noise import noisy

COUNT, CLASSES = 20_000, 5
IDS = np.arange(COUNT)
LABELS = IDS % CLASSES


def drawn(share, labels=LABELS, ids=IDS, classes=CLASSES, seed=3):
    return noisy(labels, ids, share=share, classes=classes, seed=seed)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_share_of_all_gets_another_class_uniform_over_the_others(share):
    found = drawn(share)
    wrong = found != LABELS
    # Five standard deviations of what is drawn; the seed is fixed.
    assert abs(wrong.sum() - share * COUNT) < 5 * np.sqrt(COUNT * share * (1 - share))
    steps = np.bincount((found - LABELS)[wrong] % CLASSES, minlength=CLASSES)
    each = wrong.sum() / (CLASSES - 1)
    assert steps[0] == 0 and np.abs(steps[1:] - each).max() < 5 * np.sqrt(each)
    for label in range(CLASSES):
        assert set(found[wrong & (label == LABELS)]) == {*range(CLASSES)} - {label}


def test_none_is_wrong_of_0_and_every_one_of_1():
    assert (drawn(0.0) == LABELS).all()
    assert (drawn(1.0) != LABELS).all()
    assert (drawn(1.0, labels=IDS % 2, classes=2) == 1 - IDS % 2).all()


def test_a_sample_has_the_same_whatever_batch_it_is_in_and_another_with_another_seed():
    whole = drawn(0.5)
    order = np.random.default_rng(0).permutation(COUNT)
    for part in np.split(order, 8):
        assert (drawn(0.5, labels=LABELS[part], ids=part) == whole[part]).all()
    other = drawn(0.5, seed=4)
    assert 0.4 < np.mean((other != LABELS) == (whole != LABELS)) < 0.6  # which are wrong are others, too


def test_more_noise_keeps_what_was_wrong_as_it_was():
    little, much = drawn(0.2), drawn(0.6)
    assert (much[little != LABELS] == little[little != LABELS]).all()


def test_the_labels_that_are_given_stay_as_they_are():
    given = LABELS.copy()
    noisy(given, IDS, share=1.0, classes=CLASSES, seed=0)
    assert (given == LABELS).all()
