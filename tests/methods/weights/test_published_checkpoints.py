"""The lines of the docs about published checkpoints: each composes, and reads what is published under the name in it,
at the sizes of the real network, of which only names and shapes are made here."""

import pickle
import re
import shlex
from functools import cache
from pathlib import Path

import publishers
import pytest
import timm
import torch
import torchvision
from PIL import Image
from publishers import DeepClusters
from torch import nn

from launcher.compose import weights as files
from launcher.errors import InputError
from methods import backbones
from methods.backbones import layouts
from methods.backbones.layouts import Source, fitted
from methods.backbones.reading import _flat, tensors

DOCS = Path(__file__).parents[3] / "docs"
TOLD = "".join(file.read_text() for file in sorted(DOCS.glob("evaluation*.md")))
SECTION = re.search(r"^## Published checkpoints\n(.*?)(?=^## |\Z)", TOLD, re.M | re.S)[1]
LINES = {re.search(r"weights=(\S+)", line)[1]: line for line in re.findall(r"`(sslrun eval weights=[^`]+)`", SECTION)}


class Grey(nn.Module):
    """A network of DeepCluster's repository, of the layers that it has there."""

    def __init__(self, features, classifier):
        super().__init__()
        self.features, self.classifier = features, nn.Sequential(*classifier)


def vgg16():
    features = torchvision.models.vgg16_bn().features
    features[0] = nn.Conv2d(2, 64, 3, padding=1)
    rest = nn.Linear(512 * 7 * 7, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()
    return Grey(features, rest)


def alexnet():
    """models/alexnet.py there."""
    layers, inputs = [], 2
    for outputs, size, pools in ((96, 11, 1), (256, 5, 1), (384, 3, 0), (384, 3, 0), (256, 3, 1)):
        layers += [nn.Conv2d(inputs, outputs, size), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] * pools
        inputs = outputs
    rest = nn.Dropout(), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()
    return Grey(nn.Sequential(*layers), rest)


def grey(make):
    filters = DeepClusters(nn.Identity())  # which are read, not only named
    with torch.device("meta"):
        filters.trunk = make()
    return filters.state_dict()


def of(make):
    with torch.device("meta"):
        network = make()
    return {name: value for name, value in network.state_dict().items() if not re.match(r"(fc|heads)\.", name)}


@cache
def resnet50():
    return of(torchvision.models.resnet50)


def wide(width):
    return lambda: of(lambda: backbones.build(f"resnet50_w{width}").trunk)


def vit(name):
    return cache(lambda: of(lambda: timm.create_model(name, num_classes=0)))


def of_timm(state):
    return {"model": state | publishers.head("head")}


SMALL, SWAV = vit("vit_small_patch16_224"), ("SwAV", ["projection_head", "prototypes"])
TIMM, RESNET = "timm's transformers", ("torchvision and timm", ["fc"])
FULL = ("DINO's full checkpoint", ["dino_loss", "optimizer", "student", "teacher.head"])
MOCO = ["encoder_k", "encoder_q.fc", "queue", "queue_ptr"]
GREY = ["optimizer", "state_dict.sobel", "state_dict.top_layer"]
BYOL = ["model.online_network.projetion", "model.predictor", "model.target_network", "optimizer"]
VISSL = [f"classy_state_dict.{part}" for part in ("base_model.model.heads", "loss", "optimizer")]
JIGSAW = "jigsaw_rn50_in1k_ep105_perm2k_jigsaw_8gpu_resnet_17_07_20.db174a43/model_final_checkpoint_phase104.torch"


def byol(state):
    """As of `publishers.byol`, with the children of a ResNet-50."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    named = {f"{numbers[name.partition('.')[0]]}.{name.partition('.')[2]}": value for name, value in state.items()}
    content = publishers.byol(of(torchvision.models.resnet18))
    heads = {name: value for name, value in content["model"].items() if ".encoder." not in name}
    online = publishers.under("module.online_network.encoder.", named)
    target = publishers.under("module.target_network.encoder.", publishers.other(named))
    return content | {"model": online | target | heads}


# The file -> (the public network's state, how its publisher saves it, whose layout it is, what is thrown away).
RELEASED = {
    "swav_800ep_pretrain.pth.tar": (resnet50, publishers.swav, *SWAV),
    "swav_RN50w2_400ep_pretrain.pth.tar": (wide(2), publishers.swav, *SWAV),
    "swav_RN50w4_400ep_pretrain.pth.tar": (wide(4), publishers.swav, *SWAV),
    "swav_RN50w5_400ep_pretrain.pth.tar": (wide(5), publishers.swav, *SWAV),
    "deepclusterv2_800ep_pretrain.pth.tar": (resnet50, publishers.deepclusterv2, *SWAV),
    "selav2_400ep_pretrain.pth.tar": (resnet50, publishers.deepclusterv2, *SWAV),
    "dino_deitsmall16_pretrain.pth": (SMALL, dict, TIMM, []),
    "dino_deitsmall8_pretrain.pth": (vit("vit_small_patch8_224"), dict, TIMM, []),
    "dino_vitbase16_pretrain.pth": (vit("vit_base_patch16_224"), dict, TIMM, []),
    "dino_vitbase8_pretrain.pth": (vit("vit_base_patch8_224"), dict, TIMM, []),
    "dino_resnet50_pretrain.pth": (resnet50, dict, "torchvision and timm", []),
    "dino_deitsmall16_pretrain_full_checkpoint.pth": (SMALL, publishers.dino, *FULL),
    "moco_v2_800ep_pretrain.pth.tar": (
        resnet50, publishers.moco, "MoCo", ["optimizer", *(f"state_dict.{part}" for part in MOCO)],
    ),
    "pretrain_res50x1.pth.tar": (resnet50, publishers.torchvisions, *RESNET),
    "resnet50_300.pth.tar": (resnet50, byol, "BYOL-PyTorch", BYOL),
    "vgg16/checkpoint.pth.tar": (lambda: grey(vgg16), publishers.deepcluster, "DeepCluster", GREY),
    "alexnet/checkpoint.pth.tar": (lambda: grey(alexnet), publishers.deepcluster, "DeepCluster", GREY),
    "ours.pth": (
        lambda: grey(vgg16), publishers.deepercluster, "DeeperCluster",
        ["optimizer", "state_dict.pred_layer", "state_dict.sobel"],
    ),
    JIGSAW: (resnet50, publishers.vissl, "VISSL", VISSL),
    "resnet50-0676ba61.pth": (resnet50, publishers.torchvisions, *RESNET),
    "vit_b_16-c867db91.pth": (
        lambda: of(torchvision.models.vit_b_16), publishers.torchvisions_vit, "torchvision's transformers", ["heads"],
    ),
    "swin_t-704ceda3.pth": (
        lambda: of(torchvision.models.swin_t), dict, "plain names", ["head", "relative_position_index"],
    ),
    "deit_small_patch16_224-cd65a155.pth": (SMALL, of_timm, TIMM, ["model.head"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A folder of labelled images."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for number in range(2):
                Image.new("RGB", (8, 8)).save(root / split / label / f"{number}.png")
    return root


def test_each_line_of_the_docs_is_tested():
    assert LINES.keys() == RELEASED.keys()


@pytest.mark.parametrize("file", LINES)
def test_a_line_composes(file, labelled, tmp_path):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"its weights")
    words = shlex.split(LINES[file])[2:]
    typed = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    typed |= {"weights": str(path), "data.path": str(labelled), "cluster": "local"}
    method = files.want([f"{name}={value}" for name, value in typed.items()]).method
    assert (method.weights, method.backbone) == (str(path), typed["backbone"])
    assert list(method.settings) == typed["protocol"].split(",")
    bicubic = file.startswith("dino_resnet50") or not backbones.BACKBONES[method.backbone].batch_norm
    assert method.interpolation == ("bicubic" if bicubic and not method.backbone.startswith("vgg") else "bilinear")


@pytest.mark.parametrize("file", LINES)
def test_what_is_published_under_the_name_is_the_backbone_of_the_line(file):
    make, saved, layout, thrown_away = RELEASED[file]
    state, backbone = make(), re.search(r"backbone=(\S+)", LINES[file])[1]
    content = dict(_flat(saved(state), "", frozenset()))
    found = fitted(content, backbone, Source("weights", Path(file), backbone="backbone", key=True))
    assert (found.layout, found.thrown_away) == (layout, thrown_away)
    # Every tensor is one of the network's, and none of a head or of a second network.
    theirs = {id(value) for value in state.values()}
    others = {name for name, value in found.state.items() if id(value) not in theirs}
    assert all(name == "trunk.features.0.weight" or name.endswith("num_batches_tracked") for name in others)
    assert found.state.keys() == layouts._shapes(backbone).keys()


def test_what_is_not_read_is_refused_in_one_line(tmp_path):
    xcit = vit("xcit_small_12_p16_224")()
    with pytest.raises(
        InputError, match=r"another network than vit_small_16: .*; give another backbone=NAME"
    ) as caught:
        fitted(xcit, "vit_small_16", Source("weights", Path("dino_xcit.pth"), backbone="backbone", key=True))
    assert "\n" not in str(caught.value)
    pickled = pickle.dumps({"experiment_state": Path("x"), "step": 3}, protocol=4)  # as dill writes BYOL's
    for name in ("pretrain_res50x1.pkl", "pretrain_res50x1.pth"):
        (tmp_path / name).write_bytes(pickled)
    line = ["backbone=resnet50", "protocol=knn", "data=photos", f"weights={tmp_path}/pretrain_res50x1.pkl"]
    with pytest.raises(InputError, match=r"its name does not end as one of weights does; give one of \.safetensors"):
        files.want(line)
    with pytest.raises(InputError, match=r"pretrain_res50x1\.pth: ") as caught:
        tensors(tmp_path / "pretrain_res50x1.pth", "weights")
    assert "\n" not in str(caught.value)
