"""What is drawn for pairs is of the distributions of the papers, and depends on no layout."""

import numpy as np
import pytest
import torch

from methods.augment.mixing import Mixing, table_of

PAIRS = range(4000)


def test_each_pair_and_view_draws_its_own_and_by_chance_one_or_the_other():
    cut, own, down, along = Mixing(1, 0.8, 1.0, 0.25).draws(7, PAIRS, range(2)).reshape(4, -1)
    assert len(set(own)) == own.size == 2 * len(PAIRS)
    deviation = 5 / np.sqrt(own.size)
    assert abs(cut.mean() - 0.25) < deviation
    for kind, alpha in ((0, 0.8), (1, 1.0)):  # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))
        assert abs(own[cut == kind].mean() - 0.5) < 2 * deviation
        assert own[cut == kind].var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    for place in (down, along):
        assert place.min() >= 0 and place.max() < 1 and abs(place.mean() - 0.5) < deviation


@pytest.mark.parametrize(("mixup", "cutmix", "share"), [(0.8, 0.0, 0), (0.0, 1.0, 1)])
def test_where_there_is_one_it_is_always_that_one(mixup, cutmix, share):
    cut = Mixing(1, mixup, cutmix, 0.5).draws(0, range(50), range(1))[0]
    assert (cut == share).all()


def test_a_pass_mixes_its_pairs_as_the_whole_batch_does():
    mixing = Mixing(5, 0.8, 1.0, 0.5)
    draws = torch.Generator().manual_seed(0)
    crops = [torch.rand(2 * 8, 3, 12, 12, generator=draws), torch.rand(8, 3, 6, 6, generator=draws)]
    before = [each.clone() for each in crops]
    whole, own = mixing(crops, 3, range(4))
    assert own.shape == (3, 8)
    for first in (0, 4):
        rows = slice(first, first + 4)
        part = [each.unflatten(0, (-1, 8))[:, rows].flatten(0, 1) for each in crops]
        made, share = mixing(part, 3, range(first // 2, first // 2 + 2))
        assert torch.equal(share, own[:, rows])
        for ours, theirs in zip(made, whole, strict=True):
            assert torch.equal(ours, theirs.unflatten(0, (-1, 8))[:, rows].flatten(0, 1))
    assert all(torch.equal(a, b) for a, b in zip(crops, before, strict=True))  # left as they were
    again, _ = mixing(crops, 4, range(4))
    assert not torch.equal(again[0], whole[0])  # another step, other draws


def test_a_rectangle_has_the_area_that_lambda_leaves_but_for_whole_pixels_and_the_border():
    side = 64
    drawn = np.array([[[1.0]], [[0.75]], [[0.5]], [[0.5]]])
    table, own = table_of(drawn, side)
    assert table[:, 0, 0].tolist() == [1, 16, 48, 16, 48] and own.item() == 0.75
    drawn[2:] = 0.0  # three quarters of it are outside
    table, own = table_of(drawn, side)
    assert table[:, 0, 0].tolist() == [1, 0, 16, 0, 16] and own.item() == 1 - 1 / 16
