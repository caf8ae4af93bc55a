import math

import pytest
import torch

from methods.engine import collapse
from methods.parts.losses import entropy


def effective_rank(x):
    rows = x.double()
    return collapse.rank_of_moments(rows.T @ rows)


def features(n, d, rank, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, rank, generator=generator) @ torch.randn(rank, d, generator=generator)


def test_use_and_rows_have_entropies_of_their_own():
    one_hot = torch.eye(8).repeat(3, 1)
    assert collapse.entropy_of_use(one_hot).item() == pytest.approx(math.log(8))
    assert entropy(one_hot).mean().item() == pytest.approx(0)
    uniform = torch.full((24, 8), 1 / 8)
    assert entropy(uniform).mean().item() == pytest.approx(math.log(8))
    assert collapse.entropy_of_use(uniform).item() == entropy(uniform).mean().item()
    to_one = torch.zeros(24, 8)
    to_one[:, 3] = 1
    assert collapse.entropy_of_use(to_one).item() == entropy(to_one).mean().item() == 0


@pytest.mark.parametrize("rank", [1, 3, 10])
def test_the_effective_rank_is_the_entropy_of_the_singular_values(rank):
    x = features(50, 10, rank)
    values = torch.linalg.svdvals(x.double())[:rank]
    shares = values / values.sum()
    expected = math.exp(-sum(p * math.log(p) for p in shares.tolist()))
    assert effective_rank(x).item() == pytest.approx(expected, rel=1e-4)
    assert 1 - 1e-9 <= expected <= rank


def test_orthogonal_features_have_full_rank_and_a_constant_with_noise_hardly_more_than_one():
    assert effective_rank(torch.eye(16) * 5).item() == pytest.approx(16)
    collapsed = torch.ones(200, 16) + 1e-4 * features(200, 16, 16)
    assert effective_rank(collapsed).item() < 1.1


def test_features_without_a_rank_have_none():
    assert math.isnan(effective_rank(torch.zeros(4, 3)).item())
    assert math.isnan(effective_rank(torch.full((4, 3), math.nan)).item())


def test_half_precision_features_are_squared_in_double():
    x = features(50, 10, 4)
    found = effective_rank((x * 1e3).half())
    assert found.item() == pytest.approx(effective_rank(x).item(), rel=0.05)


def test_empty_groups_are_counted():
    assert collapse.empty_share(torch.tensor([0, 0, 0, 9])) == 0.75


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_likeness_is_the_mean_squared_cosine_between_two_images(precision):
    x = features(6, 4, 3)
    cosines = [torch.cosine_similarity(x[i], x[j], dim=0) ** 2 for i in range(6) for j in range(6) if i != j]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        found = collapse.likeness(x.requires_grad_())
    assert not found.requires_grad
    assert found.item() == pytest.approx(sum(cosines).item() / 30, rel=1e-5)


def test_what_is_alike_has_a_likeness_of_1_and_what_many_directions_have_is_one_over_their_number():
    line = features(50, 1, 1) * torch.randn(1, 16, generator=torch.Generator().manual_seed(1))
    assert collapse.likeness(line).item() == pytest.approx(1)  # both signs, many lengths: the mean cosine is not 1
    assert collapse.likeness(torch.zeros(9, 4)).item() == pytest.approx(1)
    assert collapse.likeness(torch.ones(1, 4)).item() == 0
    directions = torch.eye(20).repeat(50, 1)
    assert collapse.likeness(directions).item() == pytest.approx(1 / 20, rel=0.03)
    assert collapse.likeness(torch.ones(200, 16) + 1e-2 * features(200, 16, 16)).item() > collapse.LIKE


def test_groups_that_stay_empty_are_said_where_the_entropy_of_use_says_nothing():
    members = torch.zeros(3000)
    members[:20] = 205  # of 4,100 images
    use = collapse.entropy_of_use((members / members.sum()).unsqueeze(0)).item()
    watched = collapse.Watched(3000, use="use", hit="hit", images=4100)
    assert collapse.collapse(3000, use=use) is None
    said = watched.says({"use": use, "hit": (members > 0).float().mean().item()})
    assert said == "images fall to few classes, 20 of 3000 in a step of 4100 images"
    assert watched.says({"use": 7.0, "hit": 0.5}) is None
    few = collapse.Watched(3000, hit="hit", images=64)  # which hit 64 classes at most
    assert few.says({"hit": 40 / 3000}) is None and few.says({"hit": 5 / 3000})


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"use": 0.0}, "nearly all images fall to one of 100 classes"),
        ({"use": math.log(100), "single": math.log(100)}, "outputs are uniform over 100 classes"),
        ({"use": 3.0, "single": 2.99}, "outputs are alike for all images"),
        ({"use": math.log(100), "single": 2.0, "rank": 1.2}, "features differ in their length alone"),
        ({"use": math.log(100), "single": 2.0, "alike": 0.999}, "features differ in length and sign alone"),
        ({"hit": 0.02}, "images fall to few classes, 2 of 100"),
        ({"use": math.log(100), "single": 0.0, "rank": 40.0, "alike": 0.9, "hit": 0.25}, None),
        ({"rank": math.nan}, None),  # the watch over the loss says that
        ({}, None),
    ],
)
def test_a_collapse_is_said_plainly(figures, said):
    line = collapse.collapse(100, **figures)
    assert (line is None) if said is None else line.startswith(said)


def test_what_is_no_classification_is_watched_by_likeness_alone():
    watched = collapse.Watched(alike="likeness")
    assert watched.says({"likeness": 0.5}) is None and "features differ" in watched.says({"likeness": 0.999})
    with pytest.raises(ValueError, match="say how many there are"):
        collapse.Watched(use="entropy")
