"""Our detectors are torchvision's: the same loss of the same images and weights, and the same boxes."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.resnet import resnet18
from torchvision.ops import FrozenBatchNorm2d

from launcher.errors import InputError
from methods import backbones
from methods.backbones.spec import BACKBONES
from methods.data.sets.made_objects.reader import MadeObjects
from methods.evals.detection.model import augmented, detector, drawn_from, learning, loss_of, stages_of
from methods.evals.detection.protocol import optimizer_of, share_at
from methods.evals.detection.spec import Detection

CPU = torch.device("cpu")
SIZES = [8, 16, 24, 32, 48]
SMALL = {"sides": [64], "anchors": SIZES, "width": 16, "hidden": 32, "proposals": 40, "rois": 16}


def some(count):
    dataset = MadeObjects("train", images=76)
    images, targets = [], []
    for number in range(count):
        images.append(torch.from_numpy(np.array(dataset.image(number)).transpose(2, 0, 1)).float() / 255)
        target = {"boxes": dataset.boxes(number), "labels": dataset.box_labels(number) + 1}
        target["masks"] = dataset.object_masks(number).astype(np.uint8)
        targets.append({key: torch.from_numpy(value) for key, value in target.items()})
    return images, targets


def made(name, **settings):
    torch.manual_seed(3)
    body = backbones.build(name)
    for module in body.modules():  # as of a network that has learnt
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return detector(body, name, Detection(**{**SMALL, **settings}), 6, seed=1)


def torchvisions(kind):
    """Its own model, with a small pyramid and small heads."""
    layers = {f"layer{number}": str(number - 1) for number in range(1, 5)}
    heads = {"box_head": TwoMLPHead(16 * 49, 32), "box_predictor": FastRCNNPredictor(32, 7)}
    if kind is MaskRCNN:
        heads |= {"mask_head": MaskRCNNHeads(16, (16,) * 4, 1), "mask_predictor": MaskRCNNPredictor(16, 16, 7)}
    return kind(
        BackboneWithFPN(resnet18(norm_layer=FrozenBatchNorm2d), layers, [64, 128, 256, 512], 16),
        rpn_anchor_generator=AnchorGenerator(tuple((side,) for side in SIZES), ((0.5, 1.0, 2.0),) * 5),
        rpn_pre_nms_top_n_train=80,
        rpn_pre_nms_top_n_test=40,
        rpn_post_nms_top_n_train=40,
        rpn_post_nms_top_n_test=40,
        box_batch_size_per_image=16,
        min_size=64,
        _skip_resize=True,  # which would draw a number before the boxes are drawn
        **heads,
    )


@pytest.mark.parametrize(("name", "kind"), [("faster_rcnn", FasterRCNN), ("mask_rcnn", MaskRCNN)])
def test_loss_gradients_and_boxes_are_those_of_torchvision_s_own_model(name, kind):
    ours, theirs = made("resnet18", detector=name, norm="frozen"), torchvisions(kind)
    state = {key.replace(".trunk", ""): value for key, value in ours.state_dict().items() if "num_batches" not in key}
    theirs.load_state_dict(state, strict=True)
    (image,), (target,) = some(1)
    ours, theirs, image = ours.double(), theirs.double(), image.double()  # no ReLU depends on rounding
    target["boxes"] = target["boxes"].double()
    lost = loss_of(ours, [image], [target], [(STRAIGHT, 5)])
    lost.backward()
    theirs.train()
    with drawn_from(5, CPU):
        expected = sum(theirs([image], [target]).values())
    expected.backward()
    torch.testing.assert_close(lost, expected)
    for part, their in (("backbone.body.trunk.layer2", "backbone.body.layer2"), ("rpn", "rpn"), ("roi_heads",) * 2):
        first, second = (next(net.get_submodule(at).parameters()) for net, at in ((ours, part), (theirs, their)))
        torch.testing.assert_close(first.grad, second.grad)
        assert first.grad.abs().max() > 0
    for net in (ours, theirs):
        net.roi_heads.score_thresh = 0.0  # nothing is learnt yet
    with torch.no_grad():
        (found,), (known,) = ours.eval()([image]), theirs.eval()([image])
    assert len(found["boxes"]) > 10
    assert set(found) == {"boxes", "labels", "scores"} | ({"masks"} if name == "mask_rcnn" else set())
    for key, value in found.items():
        torch.testing.assert_close(value, known[key])


def straight_and_turned():
    """Seeds by which an image stays, and is turned round."""
    found = {}
    for seed in range(100):
        with drawn_from(seed, CPU):
            found.setdefault(bool(torch.rand(()) < 0.5), seed)
    return found[False], found[True]


STRAIGHT, TURNED = straight_and_turned()


def test_an_image_is_turned_round_and_resized_with_its_boxes_and_masks():
    model = made("small_resnet", sides=[64, 96])
    (image,), (target,) = some(1)
    sizes = set()
    for seed in range(12):
        one, (there,) = augmented(model, image, target, seed)
        height, width = one.image_sizes[0]
        sizes.add((height, width))
        boxes = there["boxes"].round().int().tolist()
        for (left, top, right, bottom), mask in zip(boxes, there["masks"], strict=True):
            assert mask.shape == (height, width) and mask[top:bottom, left:right].sum() >= 0.9 * mask.sum() > 0
    assert sizes == {(64, 64), (96, 96)}
    model.transform.min_size = [64]
    straight, turned = (augmented(model, image, target, seed) for seed in (STRAIGHT, TURNED))
    torch.testing.assert_close(straight[0].tensors, turned[0].tensors.flip(-1))
    torch.testing.assert_close(straight[1][0]["boxes"][:, 0], 64 - turned[1][0]["boxes"][:, 2])
    assert torch.equal(straight[1][0]["masks"], turned[1][0]["masks"].flip(-1))


def test_an_image_s_loss_is_its_own_whatever_is_in_the_batch_and_follows_from_its_seeds():
    model = made("small_resnet", norm="frozen")
    images, targets = some(3)
    seeds = [(1, 2), (3, 4), (5, 6)]
    torch.manual_seed(7)
    whole = loss_of(model, images, targets, seeds)
    torch.manual_seed(8)
    alone = [loss_of(model, images[at : at + 1], targets[at : at + 1], seeds[at : at + 1]) for at in range(3)]
    torch.testing.assert_close(whole, sum(alone))
    together = loss_of(model, images, targets, seeds, canvas=lambda sizes: (64, 64))
    torch.testing.assert_close(together, whole)
    assert loss_of(model, images, targets, [(1, 2), (3, 4), (5, 7)]) != whole


def test_on_a_canvas_the_heads_see_of_each_image_what_is_its_own(monkeypatch):
    model = made("small_resnet", norm="frozen")
    images, targets = some(2)
    images[1], seen = images[1].repeat(1, 1, 2)[:, :, :100], []
    forward = model.rpn.forward
    monkeypatch.setattr(model.rpn, "forward", lambda *given: seen.append(given[:2]) or forward(*given))
    for canvas in (None, lambda sizes: tuple(map(max, zip(*sizes, strict=True)))):
        loss_of(model, images, targets, [(STRAIGHT, 0), (STRAIGHT, 0)], canvas=canvas)
    alone, together = seen[:2], seen[2:]
    for (one, maps), (other, others) in zip(alone, together, strict=True):
        assert one.image_sizes == other.image_sizes and one.tensors.shape == other.tensors.shape
        assert {key: value.shape for key, value in maps.items()} == {key: v.shape for key, v in others.items()}
    torch.testing.assert_close(alone[1][1]["0"], together[1][1]["0"])  # the largest has no more border than alone


def test_coordinates_have_all_their_digits_in_half_precision():
    model, seen = made("small_resnet"), []
    model.rpn.anchor_generator.register_forward_hook(lambda _m, _given, made: seen.append(made[0].dtype))
    images, targets = some(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lost = loss_of(model, images, targets, [(1, 2), (3, 4)], canvas=lambda sizes: (64, 64))
        with torch.no_grad():
            (found, _) = model.eval()(images)
    assert {lost.dtype, *seen, found["boxes"].dtype, found["scores"].dtype} == {torch.float32}
    head, units = (
        model.roi_heads.box_predictor,
        torch.randn(5, 32, generator=torch.Generator().manual_seed(1)).bfloat16(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores, coordinates = head(units)
    assert torch.equal(scores, nn.functional.linear(units.float(), head.cls_score.weight, head.cls_score.bias))
    assert torch.equal(coordinates, nn.functional.linear(units.float(), head.bbox_pred.weight, head.bbox_pred.bias))


@pytest.mark.parametrize(
    ("name", "strides"),
    [("resnet18", [4, 8, 16, 32]), ("small_resnet", [2, 4, 8, 16]), ("small_vgg", [1, 2, 4, 8])],
)
def test_the_last_map_of_each_size_is_taken(name, strides):
    body = backbones.build(name)
    stages = stages_of(body, name)
    assert [stage.stride for stage in stages] == strides
    for image in (torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 128, 64)):
        shapes = [value.shape[1:] for value in made(name).backbone(image).values()]
        assert shapes[:4] == [(16, image.shape[2] // stride, image.shape[3] // stride) for stride in strides]


def learns(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_what_is_frozen_learns_nothing_and_keeps_its_statistics():
    body, names = "backbone.body.trunk.", {}
    for frozen in (0, 2, 4):
        model = made("small_resnet", frozen=frozen)
        names[frozen] = {name.removeprefix(body) for name in learns(model) if name.startswith(body)}
        still = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d) and not module.training]
        assert len(still) == {0: 0, 2: 6, 4: 12}[frozen]
    assert "conv1.weight" in names[0] and names[4] == set()
    assert {name.partition(".")[2][0] for name in names[2]} == {"2", "3"}
    frozen = made("small_resnet", norm="frozen")
    assert not any(module.training for module in frozen.modules() if isinstance(module, nn.BatchNorm2d))
    assert not any("bn" in name for name in learns(frozen)) and "backbone.body.trunk.conv1.weight" in learns(frozen)
    assert not any("classifier" in name for name in learns(made("small_vgg")))
    assert learning(made("small_resnet").eval()).training


def test_the_backbone_that_is_judged_stays_as_it_is():
    body = backbones.build("small_resnet").requires_grad_(False)
    before = {key: value.clone() for key, value in body.state_dict().items()}
    model = detector(body, "small_resnet", Detection(**SMALL), 6, seed=1)
    images, targets = some(1)
    loss_of(model, images, targets, [(1, 2)], canvas=lambda sizes: (64, 64)).backward()
    optimizer_of(model, Detection(rate=1.0)).step()
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())
    assert not any(parameter.requires_grad for parameter in body.parameters())


def test_the_rate_grows_and_falls_as_detectron2_has_it():
    settings = Detection(warmup=10, drops=[20, 30])
    shares = [share_at(settings, step) for step in (0, 5, 10, 19, 20, 30, 40)]
    assert shares == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.01, 0.01])
    groups = optimizer_of(made("small_resnet"), settings).param_groups
    assert [group["weight_decay"] for group in groups] == [1e-4, 0] and all(p.dim() == 1 for p in groups[1]["params"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"detector": "yolo"}, "detection.detector=yolo: no such choice; use mask_rcnn or faster_rcnn"),
        ({"norm": "none"}, "detection.norm=none: no such choice"),
        ({"rule": "voc"}, "detection.rule=voc: no such choice; use coco or voc07 or area"),
        ({"frozen": 5}, "detection.frozen=5: there are 4 stages; give 0 to 4"),
        ({"anchors": [8, 16, 32]}, "detection.anchors=[8, 16, 32]: there are 5 levels; give 5 sizes"),
        ({"anchors": [8, 16, 32, 32, 64]}, "detection.anchors=[8, 16, 32, 32, 64]: there are 5"),
        ({"longest": 700}, "detection.longest=700: a shorter side is longer; give more"),
        ({"steps": 0}, "detection.steps=0: out of range; give a positive number"),
        ({"momentum": 1.0}, "detection.momentum=1.0: out of range"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(settings, said):
    with pytest.raises(InputError) as error:
        Detection(**settings).check("resnet50")
    assert str(error.value).startswith(said) and "\n" not in str(error.value)


def test_backbones_without_four_maps_are_refused_by_name():
    able = {"resnet18", "resnet50", "resnet50_w2", "small_resnet", "small_vgg", "vgg16_bn"}
    for name in BACKBONES:
        try:
            Detection().check(name)
        except InputError as error:
            assert f"protocol=detection: the backbone {name} has no" in str(error) and "resnet50" in str(error)
            able.discard(name)
    assert {"resnet18", "resnet50", "resnet50_w2", "small_resnet", "small_vgg", "vgg16_bn"} == able
    with pytest.raises(InputError):
        Detection().check("vit_small_16")
