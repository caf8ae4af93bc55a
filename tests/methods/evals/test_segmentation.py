"""Semantic segmentation as a person asks for it: what it learns from, how it is judged, and that nothing changes it."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.data.broken import Tally
from methods.data.dataset import BrokenImage
from methods.data.sets.made_objects.reader import MadeObjects
from methods.evals.alone import evaluate
from methods.evals.fit import Fit
from methods.evals.segmentation import protocol
from methods.evals.segmentation.spec import Segmentation
from methods.evals.segmentation.views import BEYOND

SHORT = (
    "protocol=segmentation", "eval_data=made/objects", "eval_data.images=76", "eval_data.side=48",
    "segmentation.steps=10", "segmentation.batch=8", "segmentation.rate=0.05", "segmentation.crop=48",
    "segmentation.stride=8", "segmentation.channels=16", "segmentation.convolutions=1", "segmentation.dilation=1",
)  # fmt: skip
CLASSES = ("background", *MadeObjects.classes)


def learnt(judged, seen):
    def looked_at(subject, learner, *how):
        seen.append({name: value.clone() for name, value in learner.state_dict().items()})
        return judged(subject, learner, *how)

    return looked_at


def in_double(change):
    """Has all that learns count in float64; change: `setattr`, or one that is taken back."""
    make, shared = protocol.network.build, protocol.synchronise
    change(protocol.network, "build", lambda *how: make(*how).double())
    change(protocol, "synchronise", lambda *how: shared(*how).double())  # which makes buffers of its own
    change(torch.Tensor, "float", torch.Tensor.double)


def on_a_rank(world, folder):
    """The weights that a rank ends with."""
    in_double(setattr)
    run, seen = RunDir(folder), []
    protocol._judged = learnt(protocol._judged, seen)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))
    return seen[0]


def test_stopped_it_finds_what_it_finds_undisturbed(evaluated, monkeypatch):
    seen = []
    monkeypatch.setattr(protocol, "_judged", learnt(protocol._judged, seen))
    asked = evaluated.asked(*SHORT)
    undisturbed = evaluated.serve(asked)["segmentation"]
    assert set(undisturbed) == {"miou", "pixel_accuracy", "mean_accuracy", "iou_by_class"}
    assert set(undisturbed["iou_by_class"]) <= set(CLASSES)
    shutil.rmtree(asked.path)
    again = evaluated.asked(*SHORT)
    assert evaluated.stopped(again, 6) and len(seen) == 1  # while it learns
    assert evaluated.stopped(again, 9) and len(seen) == 2  # and while it is judged
    assert evaluated.serve(again)["segmentation"] == undisturbed
    steps = [event["resumed"]["segmentation"] for event in again.history().all("work") if event.get("resumed")]
    assert 0 < steps[0] < 10 and steps[-1] == 10
    assert all(torch.equal(value, seen[0][name]) for one in seen for name, value in one.items())
    assert not (again.path / "features").exists()
    shutil.rmtree(again.path)


def test_on_two_ranks_it_learns_and_finds_what_it_does_on_one(evaluated, ranks, monkeypatch):
    """In float64: where a ReLU sees next to nothing, the order of a sum decides whether a gradient passes, and in
    float32 ten steps make much of that."""
    seen = []
    monkeypatch.setattr(protocol, "_judged", learnt(protocol._judged, seen))
    in_double(monkeypatch.setattr)
    asked = evaluated.asked(*SHORT)
    alone = evaluated.serve(asked)["segmentation"]
    shutil.rmtree(asked.path)
    asked = evaluated.asked(*SHORT)
    both = ranks(2, on_a_rank, asked.path)
    for name, value in seen[0].items():
        assert torch.equal(both[0][name], both[1][name])
        torch.testing.assert_close(both[0][name], value, rtol=1e-9, atol=1e-9)
    (found,) = (event["scores"] for event in asked.history().all("eval"))
    assert found == alone


def test_it_learns_which_places_of_an_image_are_bright(evaluated, monkeypatch):
    """Which it could not if crops and classes were mirrored, scaled or cut apart from each other."""

    def bright(self, index):
        grey = np.asarray(self.image(index).convert("L"), float).reshape(6, 8, 6, 8).mean((1, 3))
        return np.kron(grey > 110, np.ones((8, 8))).astype(np.uint8)

    monkeypatch.setattr(MadeObjects, "pixels", bright)
    longer = [each for each in SHORT if "steps" not in each and "stride" not in each]
    found = evaluated.scores(*longer, "segmentation.steps=60", "segmentation.stride=4")["segmentation"]
    made = MadeObjects("test", images=76, side=48)
    share = np.mean([made.pixels(index) for index in range(len(made))])
    assert 0.3 < share < 0.7
    assert found["pixel_accuracy"] > 80
    assert found["miou"] == pytest.approx(np.mean(list(found["iou_by_class"].values())), abs=0.01)


def test_steps_are_those_of_torch_s_sgd_on_the_crops_at_the_rate_of_the_step(evaluated, monkeypatch):
    """The first steps, taken once more by hand."""
    seen, built, judged = [], [], []
    make, loss, looked = protocol.network.build, protocol._loss, protocol._judged

    def build(*how):
        made = make(*how)
        built.append({name: value.clone() for name, value in made.state_dict().items()})
        return made

    def of(learner, batch, settings):
        seen.append(batch)
        return loss(learner, batch, settings)

    monkeypatch.setattr(protocol.network, "build", build)
    monkeypatch.setattr(protocol, "_loss", of)
    monkeypatch.setattr(protocol, "_judged", learnt(looked, judged))
    evaluated.scores(*SHORT, "segmentation.drops=[4]", "segmentation.weight_decay=0.01")
    settings = Segmentation(crop=48, batch=8, stride=8, channels=16, convolutions=1, dilation=1)
    theirs = make("small_resnet", evaluated.backbone, 7, settings, 0)
    theirs.load_state_dict(built[0])
    optimizer = torch.optim.SGD(theirs.train().parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    assert len(seen) == 10
    for step, batch in enumerate(seen):
        assert batch.images.shape == (8, 4, 48, 48) and len(set(batch.ids.tolist())) == 8
        optimizer.param_groups[0]["lr"] = 0.05 if step < 4 else 0.005
        truth = batch.images[:, 3].long()
        logits = theirs(batch.images[:, :3])["out"]
        counted = torch.nn.functional.cross_entropy(logits, truth, ignore_index=255) * (truth != 255).float().mean()
        optimizer.zero_grad()
        counted.backward()
        optimizer.step()
    for name, value in theirs.state_dict().items():
        moved = (value - built[0][name]).double().norm()
        assert (judged[0][name] - value).double().norm() <= 1e-3 * moved
    epoch = torch.cat([batch.ids for batch in seen[:9]])
    assert len(set(epoch.tolist())) == 72  # of 76: what fills no batch is left out


def test_the_next_batch_is_made_while_a_gpu_would_work_on_the_step(evaluated, monkeypatch):
    order, made, loss, say = [], protocol._batches, protocol._loss, Fit._say

    def batches(*how):
        for batch in made(*how):
            order.append("made")
            yield batch

    monkeypatch.setattr(protocol, "_batches", batches)
    monkeypatch.setattr(protocol, "_loss", lambda *how: order.append("begun") or loss(*how))
    monkeypatch.setattr(Fit, "_say", lambda *how: order.append("waited") or say(*how))
    evaluated.scores(*SHORT, "segmentation.steps=3")
    assert order == ["made", *2 * ["begun", "made", "waited"], "begun", "waited"]


def test_the_rate_falls_in_steps_or_by_a_power():
    Segmentation(drops=[]).check("resnet50")
    steps = Segmentation(steps=10, drops=[7, 9])
    assert [protocol.share_at(steps, step) for step in (0, 6, 7, 8, 9)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    poly = Segmentation(steps=10, schedule="poly")
    assert [protocol.share_at(poly, step) for step in (0, 5, 9)] == pytest.approx([1, 0.5**0.9, 0.1**0.9])


class Half(torch.nn.Module):
    """Takes the left half of an image for class 1, whatever its size."""

    def forward(self, images):
        self.sizes = [*getattr(self, "sizes", []), tuple(images.shape[2:])]
        left = (torch.arange(images.shape[3]) < images.shape[3] // 2).float().expand(1, 1, *images.shape[2:])
        return {"out": torch.cat([1 - left, left], 1)}


def test_an_image_is_judged_at_its_own_size_whatever_the_network_is_shown():
    image, half = torch.zeros(3, 20, 30, dtype=torch.uint8), Half()
    for side, shown in ((None, (20, 30)), (40, (40, 60)), (10, (10, 15))):
        found = protocol._classes(half, image, side)
        assert half.sizes[-1] == shown and found.shape == (20, 30)
        assert 14 <= int(found[0].sum()) <= 15 and found[0, 0] == 1 and found[0, -1] == 0


def test_images_without_a_readable_mask_are_left_out_and_said(evaluated, monkeypatch):
    pixels = MadeObjects.pixels

    def broken(self, index):
        if len(self) == 100 and index == 3:
            raise BrokenImage("a mask", "gone")
        return pixels(self, index)

    monkeypatch.setattr(MadeObjects, "pixels", broken)
    few = [each for each in SHORT if "steps" not in each and "images" not in each]
    asked = evaluated.asked(*few, "segmentation.steps=1", "eval_data.images=400")
    evaluated.serve(asked)
    said = json.loads((asked.path / "progress.json").read_text())["notices"]
    assert "segmentation: 1 of 100 images cannot be read, and are not counted" in said


def test_an_image_that_cannot_be_read_teaches_nothing_whoever_has_it(evaluated, monkeypatch):
    """Two images a rank, of which often neither can be read."""
    pixels, loss, seen = MadeObjects.pixels, protocol._loss, []

    def broken(self, index):
        if len(self) == 76 and index % 4:
            raise BrokenImage(str(index), "gone")
        return pixels(self, index)

    def told(learner, batch, settings):
        seen.append((len(batch.ids), batch.images))
        return loss(learner, batch, settings)

    monkeypatch.setattr(MadeObjects, "pixels", broken)
    monkeypatch.setattr(Tally, "too_many", False)
    monkeypatch.setattr(protocol, "_loss", told)
    evaluated.scores(*SHORT, "segmentation.batch=2", "segmentation.steps=8")
    assert {good for good, _ in seen} >= {0, 1}
    for good, images in seen:
        assert images.shape == (2, 4, 48, 48)
        assert all((each == torch.tensor(BEYOND)[:, None, None]).all() for each in images[good:])
        assert all((each[3] != 255).any() for each in images[:good])


def test_a_batch_that_the_ranks_do_not_share_is_refused_with_the_ranks_that_do():
    settings = Segmentation(batch=12)
    train = SimpleNamespace(classes=("a",))
    job = SimpleNamespace(world=SimpleNamespace(size=5))
    with pytest.raises(InputError) as caught:
        protocol.score(SimpleNamespace(job=job, splits={"train": train}), settings)
    assert str(caught.value) == (
        "segmentation.batch=12: 12 images a step do not share out to 5 ranks; use 1, 2, 3, 4, 6 or 12 ranks"
    )


def test_who_asks_for_images_without_classes_or_another_network_is_told_at_once(evaluated, evaluated_vit):
    with pytest.raises(InputError, match=r"^protocol=segmentation: it needs a class of each pixel, and"):
        evaluated.asked("protocol=segmentation", "eval_data=photos")
    with pytest.raises(InputError, match=r"it is here for residual networks, and the run has small_vit"):
        evaluated_vit.asked(*SHORT)
