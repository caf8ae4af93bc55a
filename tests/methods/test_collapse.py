import math

import pytest
import torch

from methods import collapse

pytestmark = pytest.mark.usefixtures("one_thread")


def features(n, d, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, rank, generator=generator) @ torch.randn(rank, d, generator=generator)


def test_use_and_rows_have_entropies_of_their_own():
    one_hot = torch.eye(8).repeat(3, 1)
    assert collapse.entropy_of_use(one_hot).item() == pytest.approx(math.log(8))
    assert collapse.mean_entropy(one_hot).item() == pytest.approx(0)
    uniform = torch.full((24, 8), 1 / 8)
    assert collapse.mean_entropy(uniform).item() == pytest.approx(math.log(8))
    assert collapse.entropy_of_use(uniform).item() == collapse.mean_entropy(uniform).item()
    to_one = torch.zeros(24, 8)
    to_one[:, 3] = 1
    assert collapse.entropy_of_use(to_one).item() == collapse.mean_entropy(to_one).item() == 0


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_the_effective_rank_is_the_entropy_of_the_singular_values(rank):
    x = features(50, 10, rank)
    values = torch.linalg.svdvals(x.double())[:rank]
    shares = values / values.sum()
    expected = math.exp(-sum(p * math.log(p) for p in shares.tolist()))
    assert collapse.effective_rank(x).item() == pytest.approx(expected, rel=1e-4)
    assert 1 - 1e-9 <= expected <= rank


def test_orthogonal_features_have_full_rank_and_a_constant_with_noise_hardly_more_than_one():
    assert collapse.effective_rank(torch.eye(16) * 5).item() == pytest.approx(16)
    collapsed = torch.ones(200, 16) + 1e-4 * features(200, 16, 16)
    assert collapse.effective_rank(collapsed).item() < 1.1


def test_features_without_a_rank_have_none():
    assert math.isnan(collapse.effective_rank(torch.zeros(4, 3)).item())
    assert math.isnan(collapse.effective_rank(torch.full((4, 3), math.nan)).item())


def test_half_precision_features_are_squared_in_double():
    x = features(50, 10, 4)
    found = collapse.effective_rank((x * 1e3).half())
    assert found.item() == pytest.approx(collapse.effective_rank(x).item(), rel=0.05)


def test_empty_groups_are_counted():
    assert collapse.empty_share(torch.tensor([0, 0, 0, 9])) == 0.75


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"use": 0.0}, "nearly all images fall to one of 100 classes"),
        ({"use": math.log(100), "single": math.log(100)}, "outputs are uniform over 100 classes"),
        ({"use": 3.0, "single": 2.99}, "outputs are alike for all images"),
        ({"use": math.log(100), "single": 2.0, "rank": 1.2}, "features differ in their length alone"),
        ({"use": math.log(100), "single": 0.0, "rank": 40.0}, None),
        ({"rank": math.nan}, None),  # the watch over the loss says that
        ({}, None),
    ],
)
def test_a_collapse_is_said_plainly(figures, said):
    line = collapse.collapse(100, **figures)
    assert (line is None) if said is None else line.startswith(said)
