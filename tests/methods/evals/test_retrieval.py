"""Searches by frozen features: against the published measure in plain float64, stopped, and on two ranks."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.data.dataset import Query
from methods.data.sets.made_landmarks.reader import MadeLandmarks
from methods.evals.alone import evaluate
from methods.evals.described import normalised
from methods.evals.retrieval.protocol import searched, several
from methods.evals.retrieval.ranking import judged

SHORT = (
    "protocol=retrieval",
    "eval_data=made/landmarks",
    "eval_data.queries=4",
    "eval_data.others=12",
    "retrieval.size=40",
)


# -- the published measure, one image at a time ----------------------------------------------------------------------


def by_definition(order, relevant, junk):
    """(average precision, precision at 10) of a ranking, by what is known at each of its places."""
    ap, seen, right, rank = 0.0, 0, 0, []
    for image in order:
        if image in junk:
            continue
        seen += 1
        if image in relevant:
            before = 1.0 if seen == 1 else right / (seen - 1)
            right += 1
            rank.append(seen)
            ap += (before + right / seen) / 2 / len(relevant)
    looked_at = min(rank[-1], 10)
    return ap, sum(each <= looked_at for each in rank) / looked_at


@pytest.mark.parametrize("seed", range(20))
def test_drawn_rankings_with_junk_have_the_published_measures(seed):
    rng = np.random.default_rng(seed)
    images = int(rng.integers(5, 40))
    drawn = rng.permutation(images)
    first, second = sorted(rng.integers(1, images, 2).tolist())
    relevant, junk = drawn[:first], drawn[first:second]
    order = rng.permutation(images)
    found = judged(order, relevant, junk)
    assert found == pytest.approx(by_definition(order.tolist(), {*relevant.tolist()}, {*junk.tolist()}), abs=1e-12)


def test_a_ranking_worked_by_hand():
    """Relevant ones at the first and the fourth place, of which the second is junk: then at the first and the third."""
    found = judged(np.array([7, 1, 5, 9, 3]), np.array([7, 9]), np.array([1]))
    assert found.ap == pytest.approx((1 + 1) / 4 + (1 / 2 + 2 / 3) / 4) and found.p10 == pytest.approx(2 / 3)
    assert judged(np.array([7, 1]), np.array([7]), np.array([7, 1])) == (1.0, 1.0)  # what is both is relevant
    assert judged(np.array([0, 1]), np.array([], np.int64), np.array([0])) is None


def test_easy_ones_are_junk_to_hard_searches_and_queries_without_any_are_left_out():
    features = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    none = np.array([], np.int64)
    queries = (
        Query(4, None, easy=np.array([0]), hard=np.array([2]), junk=none),  # easy first, then a wrong one, then hard
        Query(5, None, easy=np.array([3]), hard=none, junk=none),
    )
    found = searched(features, SimpleNamespace(database=4, queries=queries))
    assert found["medium"] == round(100 * ((1 + (1 / 2 + 2 / 3) / 2) / 2 + 1) / 2, 2)
    assert found["hard"] == 25.0 and found["hard_p10"] == 50.0  # one query: a wrong one, then the hard one


def test_features_are_the_sum_over_scales_of_whole_patches(evaluated_vit):
    network = evaluated_vit.backbone
    image = torch.randn(1, 3, 43, 30, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        half = interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
        assert half.shape[2:] == (21, 15)
        expected = network(image[:, :, :40, :28]) + network(half[:, :, :20, :12])
        assert torch.equal(several(network, [1.0, 0.5], "small_vit")(image), expected)


def test_an_image_smaller_than_a_patch_is_padded(evaluated_vit):
    network = evaluated_vit.backbone
    image = torch.ones(1, 3, 3, 9)
    padded = torch.zeros(1, 3, 4, 8)
    padded[:, :, :3] = 1
    with torch.no_grad():
        assert torch.equal(several(network, [1.0], "small_vit")(image), network(padded))


def test_a_scale_that_leaves_nothing_of_an_image_is_named():
    with pytest.raises(InputError, match=r"retrieval.scales=0.1: nothing is left of an image of 30 x 9 pixels; give"):
        several(torch.nn.Identity(), [1.0, 0.1], "small_vit")(torch.ones(1, 3, 9, 30))


@pytest.mark.parametrize("crop", [False, True])
def test_scores_are_those_of_the_definition_on_landmarks_made_here(evaluated_vit, crop):
    """Beside the very features of the network, one scale."""
    found = evaluated_vit.scores(*SHORT, "retrieval.scales=[1]", f"retrieval.crop={crop}")["retrieval"]
    data, network = MadeLandmarks(queries=4, others=12), evaluated_vit.backbone
    features = []
    for number in range(len(data)):
        image = data.image(number)
        if crop and number >= data.database:
            image = image.crop((20, 20, 76, 76))
        image.thumbnail((40, 40), 1)
        pixels = normalised(image)[:, : image.height // 4 * 4, : image.width // 4 * 4]
        with torch.no_grad():
            feature = network(pixels[None])[0].double().numpy()
        features.append(feature / np.sqrt((feature**2).sum()))
    medium, hard = [], []
    for query in data.queries:
        alike = [sum(a * b) for a, b in ((features[n], features[query.image]) for n in range(data.database))]
        order = sorted(range(data.database), key=lambda n: -alike[n])
        easy, difficult, junk = ({*part.tolist()} for part in (query.easy, query.hard, query.junk))
        medium.append(by_definition(order, easy | difficult, junk))
        hard.append(by_definition(order, difficult, junk | easy))
    for name, values in (("medium", medium), ("hard", hard)):
        ap, p10 = np.mean(values, 0)
        assert (found[name], found[f"{name}_p10"]) == (round(100 * ap, 2), round(100 * p10, 2))


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def test_stopped_and_on_two_ranks_it_finds_what_it_finds_undisturbed_on_one(evaluated, ranks, capsys):
    asked = evaluated.asked(*SHORT)
    alone = evaluated.serve(asked)["retrieval"]
    assert 0 < alone["hard"] < alone["medium"] < 100
    shutil.rmtree(asked.path)
    asked, starts = evaluated.asked(*SHORT), 0
    while evaluated.stopped(asked, questions=20):
        starts += 1
        assert starts < 10
    assert starts >= 2 and evaluated.serve(asked)["retrieval"] == alone
    shutil.rmtree(asked.path)
    asked = evaluated.asked(*SHORT)
    ranks(2, evaluate_on_a_rank, asked.path)
    (found,) = (event["scores"] for event in asked.history().all("eval"))
    assert found == alone


def test_what_has_no_queries_is_refused_with_what_has(evaluated):
    with pytest.raises(InputError, match=r"^protocol=retrieval: it needs queries .* eval_data=.*roxford5k"):
        evaluated.asked("protocol=retrieval", "eval_data=photos")
