"""Every layout in which weights are published, judged, started from and exported again: the features are those of the
public network that the file was made of."""

import copy
import hashlib
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from publishers import PUBLISHED, torchvisions_vit_tiny, vit_tiny
from safetensors.torch import load_file, save_file
from torch import nn

from launcher.compose.sources import pin_init_from
from launcher.run.folder import RunDir
from launcher.runtime.dist import World
from methods import backbones
from methods.backbones.export import exported
from methods.backbones.spec import BACKBONES
from methods.engine.initialise import load_backbone
from methods.weights.file import load
from methods.weights.spec import WeightsConfig


@dataclass
class Public:
    """The network that a file was made of, its state, images that it takes, in double, and its features of them."""

    network: nn.Module
    state: dict[str, torch.Tensor]
    images: torch.Tensor
    features: torch.Tensor


@pytest.fixture(scope="module")
def public():
    @cache
    def of(network, backbone):
        torch.manual_seed(0)
        theirs, size = network(), 224 if "vit" in backbone else 32
        state = {name: value.clone() for name, value in theirs.state_dict().items()}
        generator = torch.Generator().manual_seed(2)
        images = torch.randn(1, 3, size, size, generator=generator, dtype=torch.float64)
        if not BACKBONES[backbone].colour:
            images = images[:, :1].repeat(1, 3, 1, 1)  # grey, normalised alike in all channels
        with torch.no_grad():
            return Public(theirs, state, images, theirs.double()(images))

    return lambda published: of(published.network, published.backbone)


@pytest.fixture(scope="module")
def judged(public, tmp_path_factory):
    """Of a layout: (the file, a backbone as `sslrun eval weights=` judges it, what was found in it)"""

    @cache
    def of(name):
        published = PUBLISHED[name]
        path = published.write(tmp_path_factory.mktemp("published"), public(published).state)
        network, digest = backbones.build(published.backbone), hashlib.sha256(path.read_bytes()).hexdigest()
        config = WeightsConfig(weights=str(path), backbone=published.backbone, content=digest)
        found = load(network, config)
        return path, network.eval(), found

    return of


def started(path, backbone, folder):
    """The state of a backbone as a run with init_from= begins with it."""
    job = SimpleNamespace(
        spec=SimpleNamespace(init_from=pin_init_from(str(path), folder, backbone), continue_from=None),
        world=World(0, 1, torch.device("cpu")),
        run=RunDir(folder / "a run that has not begun"),
        config=SimpleNamespace(backbone=backbone),
    )
    with torch.device("meta"):  # drawing what is overwritten takes longer than all the rest
        network = backbones.build(backbone)
    load_backbone(network.to_empty(device="cpu"), job)
    return network.state_dict()


def same(one, two):
    return one.keys() == two.keys() and all(value.equal(two[name]) for name, value in one.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_is_judged_as_the_network_that_was_published(name, public, judged):
    published = PUBLISHED[name]
    theirs, (_, network, found) = public(published), judged(name)
    assert (found.layout, found.thrown_away) == (published.layout, list(published.thrown_away))
    # The input of a Sobel backbone takes one channel for the three of theirs.
    images = theirs.images if BACKBONES[published.backbone].colour else theirs.images[:, :1]
    with torch.no_grad():
        features = copy.deepcopy(network).double()(images)
    torch.testing.assert_close(features, theirs.features, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_is_what_a_run_starts_from(name, judged, tmp_path):
    path, network, _ = judged(name)
    assert same(started(path, PUBLISHED[name].backbone, tmp_path), network.state_dict())


@pytest.mark.parametrize("name", PUBLISHED)
def test_is_exported_under_the_names_of_the_public_network(name, public, judged, tmp_path):
    published, (_, network, _) = PUBLISHED[name], judged(name)
    theirs, target = public(published), tmp_path / "backbone.safetensors"
    trunk = exported(network.trunk.state_dict(), published.backbone)
    save_file({key: value.contiguous() for key, value in trunk.items()}, target)
    state = load_file(target)
    if published.network is torchvisions_vit_tiny:  # comes out as timm's
        timms = vit_tiny()
        timms.load_state_dict(state, strict=True)
        with torch.no_grad():
            torch.testing.assert_close(timms.double()(theirs.images), theirs.features, rtol=1e-9, atol=1e-9)
    else:
        state = {name: 0 * value if name.endswith("num_batches_tracked") else value for name, value in state.items()}
        before = {key.removeprefix("trunk."): value for key, value in theirs.state.items() if "sobel" not in key}
        assert same(state, before)
    # What was exported is started from like what was published.
    assert same(started(target, published.backbone, tmp_path), network.state_dict())
