"""An evaluation by detection: what it is judged on, and that it ends the same whatever stops it and on two ranks."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.data.broken import Tally
from methods.data.dataset import BrokenImage
from methods.data.sets.made_objects.reader import MadeObjects
from methods.data.sets.made_objects.spec import MadeObjectsData
from methods.evals.alone import evaluate
from methods.evals.detection import protocol
from methods.evals.detection.judged import VocPrecision, scores_of
from methods.evals.detection.spec import Detection
from methods.parts import batchnorm
from methods.parts.batchnorm import RankBatchNorm

MADE = ("protocol=detection", "eval_data=made/objects", "eval_data.images=76", "eval_data.side=48")
SMALL = (
    "detection.width=8", "detection.hidden=16", "detection.proposals=20", "detection.rois=8", "detection.sides=[48]",
    "detection.anchors=[6,9,12,18,24]", "detection.batch=4", "detection.warmup=2", "detection.drops=[5]",
)  # fmt: skip
SHORT = (*MADE, *SMALL, "detection.steps=6")


@pytest.fixture
def ends(monkeypatch):
    """The weights of each detector that has learnt."""
    found, learnt = [], protocol.learnt

    def told(subject, settings):
        model = learnt(subject, settings)
        found.append({key: value.clone() for key, value in model.state_dict().items()})
        return model

    monkeypatch.setattr(protocol, "learnt", told)
    return found


def boxes_seen(monkeypatch):
    seen, find = [], protocol._boxes

    def kept(subject, settings, model):
        model.roi_heads.score_thresh = 0.0  # it has hardly begun
        seen.append(find(subject, settings, model))
        return seen[-1]

    monkeypatch.setattr(protocol, "_boxes", kept)
    return seen


def test_what_was_stopped_ends_as_what_was_not(evaluated, ends, monkeypatch):
    seen = boxes_seen(monkeypatch)
    asked = evaluated.asked(*SHORT)
    undisturbed = evaluated.serve(asked)["detection"]
    assert set(undisturbed) == {
        "ap", "ap50", "ap75", "mask_ap", "mask_ap50", "mask_ap75", "ap_by_class",
    }  # fmt: skip
    shutil.rmtree(asked.path)
    again = evaluated.asked(*SHORT)
    assert evaluated.stopped(again, 4)
    assert evaluated.serve(again)["detection"] == undisturbed
    (work,) = [event for event in again.history().all("work") if "detection" in event.get("resumed", {})]
    assert 0 < work["resumed"]["detection"] < 6
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    assert any(key.endswith("running_mean") for key in ends[0])
    assert all(np.array_equal(a.table, b.table) and a.masks == b.masks for a, b in zip(*seen, strict=True))
    assert len(seen[0][1].table) > 100 and not (again.path / "features").exists()


def evaluate_on_a_rank(world, asked, weights):
    """Each in turn, and keep what the detectors have learnt."""
    learnt = protocol.learnt

    def kept(subject, settings):
        model = learnt(subject, settings)
        if world.is_main:
            state = {key: value.contiguous() for key, value in model.state_dict().items()}
            save_file(state, weights / f"{settings.norm}.safetensors")
        return model

    protocol.learnt = kept
    for folder in asked:
        run = RunDir(folder)
        evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def as_on_several(network, world, ranks):
    """Batch normalisation as several ranks compute it: torch's own has four digits where channels come last."""
    for parent in network.modules():
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, RankBatchNorm(child, None, ranks))
    return network


def test_two_ranks_learn_what_one_learns(evaluated, ranks, ends, tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "synchronise", as_on_several)
    monkeypatch.setattr(batchnorm, "differentiable_sum", lambda value, group: value)
    shorts, ones, asked = {"frozen": 3, "synchronised": 2}, [], []
    for norm, steps in shorts.items():
        said = (
            f"detection.norm={norm}",
            f"detection.steps={steps}",
            "detection.warmup=0",
            "detection.detector=faster_rcnn",
        )
        found = evaluated.asked(*SHORT, *said)
        ones.append(evaluated.serve(found)["detection"])
        shutil.rmtree(found.path)
        asked.append(evaluated.asked(*SHORT, *said).path)
    ranks(2, evaluate_on_a_rank, asked, tmp_path)
    before = evaluated.backbone.trunk.conv1.weight
    for norm, one, alone, folder in zip(shorts, ones, ends, asked, strict=True):
        (two,) = (event["scores"] for event in RunDir(folder).history().all("eval"))
        assert one == two and set(one) == {"ap", "ap50", "ap75", "ap_by_class"}
        found = load_file(tmp_path / f"{norm}.safetensors")
        assert found.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(
                found[key], value, rtol=1e-3, atol=1e-5, msg=lambda said, key=key: f"{key} {said}"
            )
        assert (alone["backbone.body.trunk.conv1.weight"] - before).abs().max() > 1e-3


def test_boxes_alone_are_no_ground_for_masks_which_is_said_before_anything_is_queued(evaluated, monkeypatch):
    monkeypatch.setattr(MadeObjectsData, "truth", ("tags", "boxes"))
    with pytest.raises(InputError) as error:
        evaluated.asked(*SHORT, "detection.steps=7")
    said = (
        "detection.detector=mask_rcnn: it learns from a mask of each object, and made/objects has none; use detection."
    )
    assert str(error.value) == said + "detector=faster_rcnn"
    assert evaluated.asked(*SHORT, "detection.steps=7", "detection.detector=faster_rcnn").path.exists()


def test_ranks_take_as_many_images_each_and_splits_have_the_same_classes(monkeypatch):
    world = World(0, 2, torch.device("cpu"))
    splits = {"train": MadeObjects("train", images=76), "test": MadeObjects("test", images=76)}
    subject = SimpleNamespace(job=SimpleNamespace(world=world), splits=splits)
    said = r"^detection\.batch=3: 3 images a step do not share out to 2 ranks; use 1 or 3 ranks$"
    with pytest.raises(InputError, match=said):
        protocol.learnt(subject, Detection(batch=3))
    monkeypatch.setattr(splits["test"], "classes", MadeObjects.classes[::-1])
    with pytest.raises(
        InputError, match=r"^eval_data: its two splits have other classes; give splits of one data set$"
    ):
        protocol.learnt(subject, Detection())


def test_it_is_judged_by_the_rule_that_is_asked_for_and_sees_each_image_once_an_epoch(evaluated, monkeypatch):
    seen, learnt = [], protocol._loss

    def told(subject, settings, model, data, step):
        seen.append([each.number for each in data])
        return learnt(subject, settings, model, data, step)

    monkeypatch.setattr(protocol, "_loss", told)
    found = boxes_seen(monkeypatch)
    short = *SHORT, "detection.detector=faster_rcnn", "detection.batch=25", "detection.norm=frozen"
    scores = evaluated.scores(*short, "detection.rule=voc07", "detection.steps=4")["detection"]
    epochs = [sorted(seen[0] + seen[1] + seen[2]), seen[3]]
    assert len(set(epochs[0])) == 75 and {*epochs[0]} < {*range(76)} and len(set(seen[3])) == 25 and seen[3] != seen[0]
    (there, boxes), rows = found[0], []
    for number in range(6):
        rows.append(VocPrecision(there, boxes, "voc07").of_class(number))
    assert scores == {
        **{key: round(100 * value, 2) for key, value in scores_of(np.stack(rows)).items()},
        "ap_by_class": {n: round(100 * r.mean(), 2) for n, r in zip(MadeObjects.classes, rows, strict=True)},
    }
    test = MadeObjects("test", images=76, side=48)
    truth = np.concatenate([test.boxes(number) for number in range(len(test))])
    assert np.array_equal(there.table[:, 1:5], truth.astype(float))
    assert there.table[:, 6].sum() == sum(test.difficult(number).sum() for number in range(len(test)))


def test_an_image_that_cannot_be_decoded_teaches_nothing_and_nothing_is_found_there(evaluated, monkeypatch):
    def broken(self, index):
        if index % 2:
            raise BrokenImage(str(index), "damaged")
        return image(self, index)

    def told(model, images, targets, seeds, canvas):
        blank = [not len(target["boxes"]) for target in targets]
        assert blank == [not each.any() for each in images]
        seen.append(sum(blank))
        return loss_of(model, images, targets, seeds, canvas=canvas)

    image, loss_of, seen = MadeObjects.image, protocol.loss_of, []
    monkeypatch.setattr(MadeObjects, "image", broken)
    monkeypatch.setattr(protocol, "loss_of", told)
    monkeypatch.setattr(Tally, "too_many", False)
    found = boxes_seen(monkeypatch)
    evaluated.scores(*SHORT, "detection.batch=8", "detection.steps=2")
    ((there, boxes),) = found
    assert 0 < sum(seen) < 16
    assert {*boxes.table[:, 0]} == {*range(0, 19, 2)} and {*there.table[:, 0]} == {*range(19)}


@pytest.mark.parametrize("difficult", [False, True])
def test_difficult_objects_are_learnt_from_where_that_is_asked_for(evaluated, monkeypatch, difficult):
    def told(subject, settings, model, data, step):
        numbers.extend(each.number for each in data)
        return learnt(subject, settings, model, data, step)

    def seen(model, images, targets, seeds, canvas):
        found.extend(target["boxes"] for target in targets)
        assert all(len(target["masks"]) == len(target["labels"]) == len(target["boxes"]) for target in targets)
        return loss_of(model, images, targets, seeds, canvas=canvas)

    numbers, found, learnt, loss_of = [], [], protocol._loss, protocol.loss_of
    monkeypatch.setattr(protocol, "_loss", told)
    monkeypatch.setattr(protocol, "loss_of", seen)
    said = str(difficult).lower()
    evaluated.scores(*SHORT, "detection.batch=38", "detection.steps=1", f"detection.difficult={said}")
    train = MadeObjects("train", images=76, side=48)
    every = [train.difficult(number) for number in numbers]
    assert [len(boxes) for boxes in found] == [len(each) if difficult else (~each).sum() for each in every]
    assert any(each.any() for each in every)


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_others_share_the_line(evaluated, name):
    with pytest.raises(InputError, match=rf"^protocol={name}: it needs one label an image"):
        evaluated.asked(f"protocol=detection,{name}", *MADE[1:])
