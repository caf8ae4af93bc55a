"""Copies traced to their originals: against the published procedure in float64, stopped, and on two ranks."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods import backbones
from methods.data.dataset import BrokenImage
from methods.data.sets.made_copies.reader import MadeCopies, Others
from methods.evals.alone import evaluate
from methods.evals.copies import protocol
from methods.evals.copies.protocol import encoder, generalised_mean, traced
from methods.evals.copies.whitening import whitened
from methods.evals.dense import mapper
from methods.evals.described import normalised, whole_patches

SHORT = (
    "protocol=copies",
    "eval_data=made/copies",
    "eval_data.originals=6",
    "eval_data.distractors=6",
    "eval_data.images=96",
    "copies.size=32",
)


def by_definition(features, database, originals, found):
    """Mean average precision, by trapezoids, of originals within the first `found`."""
    unit = [row / np.sqrt((row**2).sum()) for row in features]
    values = []
    for copy, wanted in zip(unit[database:], originals, strict=True):
        order = sorted(range(database), key=lambda n: -sum(unit[n] * copy))[:found]
        right, ap = 0, 0.0
        for rank, image in enumerate(order):
            if image in wanted:
                ap += ((right / rank if rank else 1.0) + (right + 1) / (rank + 1)) / 2 / len(wanted)
                right += 1
        values.append(ap)
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(6))
def test_copies_are_traced_as_published(seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(50, 8))
    originals = tuple(rng.permutation(30)[: 1 + n % 3] for n in range(20))
    for found in (5, 20):
        value = traced(features, SimpleNamespace(database=30, originals=originals), found)
        expected = by_definition(features, 30, [{*each.tolist()} for each in originals], found)
        assert value == pytest.approx(expected, abs=1e-12)


def test_an_original_beyond_those_looked_at_is_not_found():
    data = SimpleNamespace(database=3, originals=(np.array([2]),))
    features = np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [1.0, 0.0]])
    assert traced(features, data, 2) == 0
    assert traced(features, data, 3) == pytest.approx((0 + 1 / 3) / 2)


def test_what_is_learnt_from_has_unit_moments_once_it_is_whitened():
    rng = np.random.default_rng(0)
    others = rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6))
    mean = others.mean(0)
    found = whitened(others + mean, others)  # less the mean: the second moments are taken with it, as published
    assert np.allclose(found.T @ found / len(found), np.eye(6), atol=1e-9)


def test_directions_that_nothing_lies_in_are_not_blown_up():
    others = np.diag([3.0, 1.0, 0.0]).repeat(2, 0) * np.array([1, -1] * 3)[:, None]
    found = whitened(np.eye(3), others)
    moments = np.array([3.0, 1 / 3, 3e-5])  # of the third: 1e-5 of the largest
    assert np.allclose(np.sort((found**2).sum(0)), np.sort(1 / moments))


def test_a_generalised_mean_is_between_the_mean_and_the_most():
    maps = torch.tensor([[[[1.0, 2.0], [3.0, -5.0]]]])
    assert generalised_mean(maps, 4).item() == pytest.approx(((1 + 16 + 81) / 4) ** 0.25)
    assert generalised_mean(maps, 1).item() == pytest.approx(1.5)


@pytest.mark.parametrize("backbone", ["small_vit", "small_resnet"])
def test_features_are_the_backbones_beside_its_last_map(evaluated_in, tmp_path, backbone):
    network = evaluated_in(tmp_path, backbone).backbone
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        with encoder(backbone, network, 4.0) as encode:
            found = encode(images)
        with mapper(backbone, network) as mapped:
            last = mapped(images)
        expected = torch.cat([network(images), last.clamp(min=1e-6).pow(4).mean((2, 3)).pow(0.25)], 1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert not network._forward_hooks


def test_swin_has_patches_and_no_class_token_and_is_described_by_its_last_map():
    torch.manual_seed(0)
    network, images = backbones.build("swin_tiny").eval(), torch.rand(2, 3, 64, 96)
    with encoder("swin_tiny", network, 4.0) as encode, mapper("swin_tiny", network) as mapped, torch.no_grad():
        found, feature, last = encode(images), network(images), mapped(images)
        normed = network.trunk.norm(last.movedim(1, 3))
    assert last.shape == (2, 768, 2, 3)  # it joins its patches of 4 pixels until they have 32
    assert torch.allclose(normed.mean((1, 2)), feature, atol=1e-5)
    pooled = last.double().clamp(min=1e-6).pow(4).mean((2, 3)).pow(0.25)
    assert torch.allclose(found.double(), torch.cat([feature.double(), pooled], 1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("swin_tiny", (68, 100)), ("vit_small_16", (64, 96)), ("resnet50", (70, 101)), ("vgg16_bn", (70, 101))],
)
def test_what_fills_no_patch_is_left_out(backbone, size):
    image = torch.rand(1, 3, 70, 101)
    assert torch.equal(whole_patches(image, backbone), image[..., : size[0], : size[1]])


@pytest.mark.parametrize(("backbone", "least"), [("swin_tiny", 32), ("alexnet_bn", 63), ("small_resnet", 8)])
def test_an_image_too_small_for_the_network_has_a_border(backbone, least):
    image, network = torch.rand(1, 3, 6, 80), backbones.build(backbone).eval()
    found = whole_patches(image, backbone)
    assert torch.equal(found[:, :, :6], image) and found.shape == (1, 3, least, 80) and not found[:, :, 6:].any()
    with torch.no_grad():
        assert network(found).isfinite().all()


def test_scores_are_those_of_the_procedure_written_down_on_copies_made_here(evaluated_vit):
    found = evaluated_vit.scores(*SHORT)["copies"]
    network, features = evaluated_vit.backbone, []
    for data in (MadeCopies(originals=6, distractors=6), Others(images=96)):
        rows = []
        for number in range(len(data)):
            pixels = normalised(data.image(number).resize((32, 32), Image.Resampling.BICUBIC))
            with torch.no_grad():
                tokens = network.trunk.forward_features(network.input(pixels[None]))[0].double().numpy()
            rows.append(np.concatenate([tokens[0], (np.maximum(tokens[1:], 1e-6) ** 4).mean(0) ** 0.25]))
        features.append(np.array(rows))
    (test, others), data = features, MadeCopies(originals=6, distractors=6)
    originals = [{*each.tolist()} for each in data.originals]
    assert found["unwhitened"] == round(100 * by_definition(test, 12, originals, 20), 2)
    values, axes = np.linalg.eigh(others.T @ others / len(others))
    values[values < values.max() * 1e-5] = values.max() * 1e-5
    turned = (np.diag(values**-0.5) @ axes.T @ (test - others.mean(0)).T).T
    assert found["map"] == round(100 * by_definition(turned, 12, originals, 20), 2)


def test_a_few_distractors_and_teachers_that_are_broken_are_left_out_and_others_end_it(evaluated, monkeypatch, capsys):
    gone = {(MadeCopies, 8), (Others, 3)}
    for kind in (MadeCopies, Others):

        def image(self, number, kind=kind, whole=kind.image):
            if (kind, number) in gone:
                raise BrokenImage(self.name_of(number), "cut short")
            return whole(self, number)

        monkeypatch.setattr(kind, "image", image)
    seen = []
    monkeypatch.setattr(protocol, "whitened", lambda rows, others: seen.append((rows, others)) or rows)
    evaluated.scores(*SHORT, "eval_data.max_broken=0.1")
    (rows, others) = seen[0]
    assert np.flatnonzero(np.isnan(rows).any(1)).tolist() == [8] and len(others) == 95 and np.isfinite(others).all()
    assert "1 of 96 images cannot be read, the first: " in capsys.readouterr().out
    with pytest.raises(InputError, match=r"^eval_data.max_broken=0.001: 1 of 96 images cannot be read"):
        evaluated.scores(*SHORT, "eval_data.max_broken=0.001")
    gone.add((MadeCopies, 0))
    with pytest.raises(BrokenImage, match="cut short"):
        evaluated.scores(*SHORT, "eval_data.max_broken=0.5")


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def test_stopped_and_on_two_ranks_it_finds_what_it_finds_undisturbed_on_one(evaluated, ranks):
    asked = evaluated.asked(*SHORT)
    alone = evaluated.serve(asked)["copies"]
    assert 0 < alone["unwhitened"] <= 100
    shutil.rmtree(asked.path)
    asked, starts = evaluated.asked(*SHORT), 0
    while evaluated.stopped(asked, questions=4):
        starts += 1
        assert starts < 10
    assert starts >= 2 and evaluated.serve(asked)["copies"] == alone
    shutil.rmtree(asked.path)
    asked = evaluated.asked(*SHORT)
    ranks(2, evaluate_on_a_rank, asked.path)
    (found,) = (event["scores"] for event in asked.history().all("eval"))
    assert found == alone


def test_without_images_to_learn_from_nothing_is_whitened_and_that_is_said(evaluated, capsys):
    asked = evaluated.asked(*SHORT[:4], "eval_data.images=0", "copies.size=32")
    found = evaluated.serve(asked)["copies"]
    assert found["map"] == found["unwhitened"]
    assert "the features are not whitened" in capsys.readouterr().out


def test_what_has_no_copies_is_refused_with_what_has(evaluated):
    with pytest.raises(InputError, match=r"^protocol=copies: it needs copies .* eval_data=.*copydays"):
        evaluated.asked("protocol=copies", "eval_data=photos")
