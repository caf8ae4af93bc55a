"""The network is torchvision's FCN, its crops are a function of the seed, and its scores are scikit-learn's."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score
from torchvision.models import resnet50
from torchvision.models.segmentation import fcn_resnet50

from launcher.errors import InputError
from methods import backbones
from methods.evals.segmentation import confusion, network
from methods.evals.segmentation.spec import Segmentation
from methods.evals.segmentation.views import VOID, CropView, WithPixels

NAMES = ["background", "disc", "square", "cross"]


def drawn(name="small_resnet"):
    torch.manual_seed(0)
    backbone = backbones.build(name)
    for module in backbone.modules():  # running statistics that change what is seen
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return backbone.eval()


def test_with_one_convolution_it_is_torchvision_s_fcn_resnet50():
    theirs = fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=False).eval().double()
    backbone = drawn("resnet50")
    settings = Segmentation(stride=8, convolutions=1, channels=512, dilation=1)
    ours = network.build("resnet50", backbone, 5, settings, seed=3).eval().double()
    trunk = {name.removeprefix("trunk."): value for name, value in backbone.state_dict().items()}
    theirs.backbone.load_state_dict({name: value for name, value in trunk.items() if not name.startswith("fc.")})
    head = ours.classifier.state_dict()
    theirs.classifier.load_state_dict({name.replace("3.", "4."): value for name, value in head.items()})
    images = torch.randn(2, 3, 65, 49, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        found, expected = ours(images)["out"], theirs(images)["out"]
    assert found.shape == (2, 5, 65, 49)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert float(expected.std()) > 1e-3


def test_at_stride_16_the_map_is_that_of_torchvision_s_dilated_resnet():
    theirs = resnet50(replace_stride_with_dilation=[False, False, True]).eval().double()
    backbone = drawn("resnet50")
    body = network.build("resnet50", backbone, 5, Segmentation(), seed=3).backbone.eval().double()
    trunk = {name.removeprefix("trunk."): value for name, value in backbone.state_dict().items()}
    theirs.load_state_dict(trunk, strict=False)
    theirs.avgpool, theirs.fc = torch.nn.Identity(), torch.nn.Identity()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        found, expected = body(images)["out"], theirs(images)
    assert found.shape == (1, 2048, 4, 4)
    torch.testing.assert_close(found.flatten(1), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "stride", "before"), [("small_resnet", 8, 16), ("small_resnet", 4, 16), ("resnet18", 8, 32)]
)
def test_where_the_map_was_before_it_is_still(name, stride, before):
    """A dilated network sees at every place of the coarse map what the network saw there."""
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    coarse, fine = (network.Body(name, drawn(name), each).eval().double() for each in (before, stride))
    with torch.no_grad():
        coarse, fine = coarse(images)["out"], fine(images)["out"]
    step = before // stride
    assert fine.shape[2] == 64 // stride and coarse.shape[2] == 64 // before
    torch.testing.assert_close(fine[:, :, ::step, ::step], coarse, rtol=1e-9, atol=1e-11)


def test_the_judged_backbone_stays_as_it_was_and_a_seed_draws_the_head():
    backbone = drawn().requires_grad_(False)
    ours = network.build("small_resnet", backbone, 4, Segmentation(stride=8), seed=3)
    again = network.build("small_resnet", backbone, 4, Segmentation(stride=8), seed=3)
    other = network.build("small_resnet", backbone, 4, Segmentation(stride=8), seed=4)
    assert all(each.requires_grad for each in ours.parameters())
    assert not any(each.requires_grad for each in backbone.parameters())
    assert backbone.trunk.blocks[3].conv1.stride == (2, 2)
    first, second, third = (each.classifier[0].weight for each in (ours, again, other))
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert [type(each).__name__ for each in ours.classifier] == 2 * ["Conv2d", "BatchNorm2d", "ReLU"] + [
        "PixelClassifier"
    ]
    assert ours.classifier[3].dilation == (6, 6) and ours.classifier[6].kernel_size == (1, 1)


def test_logits_are_those_of_float32_whatever_the_precision():
    made = network.head(8, 21, Segmentation(convolutions=1, channels=16)).eval()
    features = torch.randn(1, 8, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        before = made[:-1](features)
        found = made(features)
    assert before.dtype == torch.bfloat16 and found.dtype == torch.float32
    last = made[-1]
    assert torch.equal(found, torch.nn.functional.conv2d(before.float(), last.weight, last.bias))


def test_other_networks_are_refused_in_a_line():
    for name in ("resnet18", "resnet50_w2", "resnext101_32x8d", "small_resnet"):
        Segmentation().check(name)
    for name in ("vit_small_16", "small_vgg", "regnety_128gf", "alexnet"):
        with pytest.raises(InputError, match=f"^protocol=segmentation: it is here for residual .* the run has {name};"):
            Segmentation().check(name)


@pytest.mark.parametrize(
    "setting, value",
    [
        ("stride", 2), ("schedule", "cosine"), ("drops", [5, 5]), ("scale", [2.0, 0.5]), ("scale", [1.0]),
        ("momentum", 1.0), ("flip", 1.5), ("crop", 8), ("batch", 0), ("rate", 0.0),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_by_name(setting, value):
    with pytest.raises(InputError, match=rf"^segmentation\.{setting}="):
        Segmentation(**{setting: value}).check("resnet50")


def maps(seed, classes=4, empty=()):
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, classes, (2, 9, 7)), rng.integers(0, classes, (2, 9, 7))
    for each in empty:
        truth[truth == each], found[found == each] = 0, 0
    truth[:, :2, 3:] = VOID
    return truth, found


@pytest.mark.parametrize("empty", [(), (2,)])
def test_scores_are_scikit_learn_s_on_the_pixels_that_are_not_void(empty):
    matrix = np.zeros((4, 4), np.int64)
    truths, founds = [], []
    for seed in range(3):
        truth, found = maps(seed, empty=empty)
        matrix += confusion.counted(torch.from_numpy(truth), torch.from_numpy(found), 4).numpy()
        truths.append(truth[truth != VOID])
        founds.append(found[truth != VOID])
    truth, found = np.concatenate(truths), np.concatenate(founds)
    assert matrix.tolist() == confusion_matrix(truth, found, labels=range(4)).tolist()
    scores = confusion.scores(matrix, NAMES)
    each = jaccard_score(truth, found, average=None)
    there = [name for n, name in enumerate(NAMES) if n not in empty]
    assert scores["iou_by_class"] == {name: round(100 * iou, 2) for name, iou in zip(there, each, strict=True)}
    assert scores["miou"] == round(100 * jaccard_score(truth, found, average="macro"), 2)
    assert scores["pixel_accuracy"] == round(100 * accuracy_score(truth, found), 2)
    assert scores["mean_accuracy"] == round(100 * balanced_accuracy_score(truth, found), 2)


def test_a_class_that_is_nowhere_but_taken_for_counts_as_0():
    found = confusion.scores(np.array([[6, 0, 2], [0, 0, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert found == {
        "miou": 37.5, "pixel_accuracy": 75.0, "mean_accuracy": 75.0, "iou_by_class": {"a": 75.0, "c": 0.0},
    }  # fmt: skip


def picture(width=40, height=24):
    """RGBA: red is the column, green the row, and the class of a pixel its quarter."""
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    classes = 2 * (rows >= height // 2) + (columns >= width // 2)
    return Image.fromarray(np.stack([4 * columns, 4 * rows, 0 * rows, classes], 2).astype(np.uint8), "RGBA")


def test_a_crop_is_a_function_of_seed_epoch_and_sample_and_shows_what_was_there():
    image, view = picture(), CropView(5, 16, (1.0, 1.0), None, 0.5)
    made = {(sample, epoch): view(image, sample, epoch) for sample in range(8) for epoch in range(2)}
    again = CropView(5, 16, (1.0, 1.0), None, 0.5)
    assert all(np.array_equal(again(image, *key), value) for key, value in made.items())
    assert len({value.tobytes() for value in made.values()}) > 12
    assert not np.array_equal(CropView(6, 16, (1.0, 1.0), None, 0.5)(image, 0, 0), made[0, 0])
    mirrored = set()
    for value in made.values():
        assert value.shape == (4, 16, 16) and value.dtype == np.uint8
        columns, rows = value[0] // 4, value[1] // 4
        assert np.array_equal(value[3], 2 * (rows >= 12) + (columns >= 20))
        mirrored.add(bool(columns[0, 0] > columns[0, 1]))
    assert mirrored == {True, False}


def test_what_lies_beyond_a_small_image_is_void_and_grey():
    made = CropView(5, 32, (0.5, 0.5), None, 0.0)(picture(), 0, 0)
    assert (made[3, :12, :20] < 4).all() and (made[3, 12:] == VOID).all() and (made[3, :, 20:] == VOID).all()
    assert made[:3, 31, 31].tolist() == [124, 116, 104]  # the mean of ImageNet's colours


def test_a_scale_is_of_the_image_s_own_size_or_of_the_side_that_is_asked_for():
    wide = [
        CropView(5, 200, (0.5, 2.0), side, 0.0)(picture(), sample, 0)[3] for side in (None, 48) for sample in range(20)
    ]
    heights = [int((each != VOID).any(1).sum()) for each in wide]
    assert 12 <= min(heights[:20]) < 20 and 40 < max(heights[:20]) <= 48
    assert 24 <= min(heights[20:]) < 40 and 80 < max(heights[20:]) <= 96


class Two:
    channels, classes, labels = 3, ("a", "b"), None

    def __len__(self):
        return 1

    def image(self, index):
        return Image.new("RGB", (3, 1), (9, 8, 7))

    def pixels(self, index):
        return np.array([[0, 2, 255]], np.uint8)

    def name_of(self, index):
        return "it"


def test_without_a_background_what_is_of_no_class_is_not_counted():
    rgba = np.asarray(WithPixels(Two()).image(0))
    assert rgba[0, :, 3].tolist() == [0, 2, 255] and rgba[0, 1, :3].tolist() == [9, 8, 7]
    alone = Two()
    alone.background = False
    assert np.asarray(WithPixels(alone).image(0))[0, :, 3].tolist() == [255, 1, 255]
