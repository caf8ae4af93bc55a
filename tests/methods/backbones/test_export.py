"""An exported backbone is the trained one, under the names of the class that its metadata tells to load it into."""

import dataclasses
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torchvision.models import vgg16_bn

from launcher.compose.training import resolve
from launcher.errors import InputError, RunFailed
from launcher.plan.plan import make
from launcher.run import pins, snapshot
from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.runtime.dist import World
from launcher.runtime.stateful import ModuleState
from methods import backbones
from methods.backbones.export import export, exported, imported
from methods.backbones.inputs import SobelInput
from methods.backbones.small_vgg.network import SmallVGG
from methods.backbones.vgg.network import VGG16
from methods.backbones.wrapper import Backbone
from methods.deepercluster.trainer import Network
from methods.engine.initialise import load_backbone
from methods.parts.shapes import Classifier

ALONE = World(0, 1, torch.device("cpu"))


def images(count=2, side=32, channels=3):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def lived_in(module):
    """`module` with every parameter and statistic somewhere else than at its initial value."""
    for number, value in enumerate(module.state_dict().values()):
        if value.is_floating_point():
            generator = torch.Generator().manual_seed(number)
            bulk = value.uniform_(-0.02, 0.02, generator=generator) if value.dim() > 1 else value
            bulk.add_(0.1 * (value.dim() == 1) * torch.rand(value.shape[:1], generator=generator)[0])
    return module.eval()


# -- VGG-16, without a run: 134 million parameters ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def vgg():
    with torch.device("meta"):  # torchvision's own initialisation takes longer than all the rest
        trunk = VGG16()
    trunk.to_empty(device="cpu")
    for name, value in trunk.state_dict().items():
        value.fill_(1 if "var" in name else 0)
    return lived_in(Backbone(trunk, SobelInput()))


def test_torchvision_loads_an_exported_vgg_and_gives_the_same_features(vgg):
    with torch.device("meta"):
        theirs = vgg16_bn()
    theirs.load_state_dict(exported(vgg.trunk.state_dict(), "vgg16_bn"), strict=True, assign=True)
    theirs.eval()
    with torch.no_grad():
        sobel = vgg.input(images())
        padded = torch.cat([sobel, torch.zeros_like(sobel[:, :1])], dim=1)  # (sobel x, sobel y, 0)
        pooled = torch.flatten(theirs.avgpool(theirs.features(padded)), 1)
        features = theirs.classifier[:4](pooled)
        ours = vgg(images())
    assert features.shape == (2, 4096) and features.std() > 0
    torch.testing.assert_close(features, ours)
    with torch.no_grad():
        assert not theirs.classifier(pooled).any()  # the layer that nobody trained


def test_a_vgg_comes_back_as_it_went(vgg):
    back = imported(exported(vgg.trunk.state_dict(), "vgg16_bn"), "vgg16_bn")
    assert set(back) == set(vgg.state_dict())
    assert all(torch.equal(value, back[name]) for name, value in vgg.state_dict().items())


# -- the demo's network, through a run's checkpoint --------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path):
    """A run with one checkpoint, and the backbone that is in it."""
    spec, recipe = resolve(["method=deepercluster", "recipe=tiny", f"runs={tmp_path}"])
    run = RunDir(tmp_path / spec.run_id)
    run.create(spec, make(spec, recipe), lambda: snapshot.take("deepercluster", tmp_path))
    heads = {"super_classifier": Classifier(256, 8)}
    network = lived_in(Network(backbones.build("small_vgg", dropout=0.0), heads))
    owners = Owners(ALONE)
    owners.add("network", ModuleState(network))
    Checkpointer(run, ALONE, owners, keep=1, generation=1).save(12, 12)
    return run, network.backbone


def test_the_demo_network_comes_back_through_its_class(trained, tmp_path):
    run, backbone = trained
    target = tmp_path / "backbone.safetensors"
    export(run, target)
    theirs = SmallVGG()
    theirs.load_state_dict(load_file(target), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(backbone.input(images())), backbone(images()), rtol=0, atol=0)


def test_the_metadata_explains_how_to_use_it(trained, tmp_path):
    run, _ = trained
    target = tmp_path / "backbone.safetensors"
    returned = export(run, target)
    with safe_open(target, framework="pt") as file:
        metadata = file.metadata()
    assert metadata == returned
    assert (metadata["run"], metadata["method"], metadata["step"]) == (run.id, "deepercluster", "12")
    assert metadata["digest"] == json.loads((run.checkpoints()[-1] / "manifest.json").read_text())["digest"]
    assert "SmallVGG" in metadata["load"]
    for word in ("0.449", "0.226", "Sobel", "padding 1"):
        assert word in metadata["input"]


def test_a_run_that_starts_from_the_file_starts_from_exactly_these_weights(trained, tmp_path):
    run, backbone = trained
    export(run, tmp_path / "backbone.safetensors")
    for name, source in {"a": tmp_path / "backbone.safetensors", "b": f"{run.path}@newest"}.items():
        spec, _ = resolve(["method=rotnet", "recipe=tiny", f"init_from={source}"])
        starts = RunDir(tmp_path / name)
        (starts.path / "events").mkdir(parents=True)
        pins.lay(starts.path, spec)
        fresh = backbones.build("small_vgg", dropout=0.0)
        load_backbone(fresh, Job(spec, starts))
        assert all(torch.equal(fresh.state_dict()[name], value) for name, value in backbone.state_dict().items())


NONE = RunDir("a run without checkpoints")


@dataclasses.dataclass
class Job:
    """What `load_backbone` reads of a job."""

    spec: object
    run: RunDir = NONE
    world = World(0, 1, torch.device("cpu"))

    @property
    def config(self):
        return self.spec.method


@pytest.mark.parametrize("content", [b"", b"not a safetensors file"])
def test_a_damaged_file_to_start_from_is_wrong_input(tmp_path, content):
    (tmp_path / "weights.safetensors").write_bytes(content)
    spec, _ = resolve(["method=rotnet", "recipe=tiny", f"init_from={tmp_path}/weights.safetensors"])
    with pytest.raises(InputError, match="init_from"):
        load_backbone(backbones.build("small_vgg", dropout=0.0), Job(spec))


def test_a_file_that_changed_since_the_run_was_submitted_is_refused(trained, tmp_path):
    run, _ = trained
    target = tmp_path / "backbone.safetensors"
    export(run, target)
    spec, _ = resolve(["method=rotnet", "recipe=tiny", f"init_from={target}"])
    content = bytearray(target.read_bytes())
    content[-1] ^= 1  # still loads
    target.write_bytes(content)
    with pytest.raises(InputError, match="changed"):
        load_backbone(backbones.build("small_vgg", dropout=0.0), Job(spec))


def test_nothing_is_overwritten_and_nothing_half_is_left(trained, tmp_path):
    run, _ = trained
    target = tmp_path / "out" / "backbone.safetensors"
    with pytest.raises(InputError, match="cannot be written"):
        export(run, target)
    target.parent.mkdir()
    target.write_text("precious")
    with pytest.raises(InputError, match="nothing is overwritten"):
        export(run, target)
    assert target.read_text() == "precious"
    assert list(target.parent.iterdir()) == [target]


def test_a_damaged_checkpoint_is_not_exported(trained, tmp_path):
    run, _ = trained
    shard = run.checkpoints()[-1] / "shared.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(RunFailed):
        export(run, tmp_path / "backbone.safetensors")
    assert not (tmp_path / "backbone.safetensors").exists()


def test_a_run_without_a_checkpoint_has_nothing_to_export(trained, tmp_path):
    run, _ = trained
    run.checkpoints()[-1].rename(run.path / "elsewhere")
    with pytest.raises(InputError, match="no checkpoint"):
        export(run, tmp_path / "backbone.safetensors")
