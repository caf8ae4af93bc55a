"""A second network stays what it was when it was pinned: the same on every rank, never trained, never saved."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan.plan import make
from launcher.run.folder import RunDir
from launcher.run.manifest import sha256
from launcher.run.snapshot import Snapshot
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.runtime.dist import World
from launcher.runtime.stateful import ModuleState
from launcher.spec.runspec import PinnedNetwork
from methods import backbones
from methods.backbones.export import export
from methods.engine.initialise import frozen_network

ALONE = World(0, 1, torch.device("cpu"))
THEIRS, OURS = "small_resnet", "small_vgg"
WORLDS, STEPS = (1, 2, 4), 2


class Network(nn.Module):
    """A trainer's, after a few batches: its statistics are not those it began with."""

    def __init__(self, backbone):
        super().__init__()
        torch.manual_seed(1)
        self.backbone = backbones.build(backbone).train()
        self.backbone(images(0))


def images(seed):
    return torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def job(world, source):
    run = RunDir("a run that pinned nothing")
    return SimpleNamespace(world=world, run=run, config=SimpleNamespace(backbone=OURS, teacher=source))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """{"run", "file"}: a network that was pinned in a checkpoint, and in what was exported of it."""
    folder = tmp_path_factory.mktemp("source")
    spec, recipe = resolve(["method=rotnet", "recipe=tiny", f"method.backbone={THEIRS}", f"runs={folder}"])
    run = RunDir(folder / spec.run_id)
    run.create(spec, make(spec, recipe), lambda: Snapshot(folder / "code", "digest", ""))
    owners = Owners(ALONE)
    owners.add("network", ModuleState(Network(THEIRS)))
    saved = Checkpointer(run, ALONE, owners, keep=1, generation=1).save(12, 12)
    file = folder / "weights.safetensors"
    digest = export(run, file)["digest"]
    return {"run": PinnedNetwork(str(saved), digest, THEIRS), "file": PinnedNetwork(str(file), sha256(file), THEIRS)}


def taught(world, sources):
    """{"run", "file"}: (outputs before and after, whether anything moved, gradients) of a rank whose own network learns
    to give what the frozen one gives."""
    return {name: lessons(world, source) for name, source in sources.items()}


def lessons(world, source):
    torch.manual_seed(world.rank)
    drawn = torch.get_rng_state()
    teacher = frozen_network(job(world, source), "teacher")
    untouched = torch.equal(torch.get_rng_state(), drawn)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    torch.manual_seed(5)
    student = backbones.build(OURS, dropout=0.0)
    learner = nn.Sequential(student, nn.Linear(student.feature_dim, teacher.feature_dim))
    trained = DistributedDataParallel(learner) if world.size > 1 else learner
    first = teacher(images(9))
    for step in range(STEPS):
        trained.train()
        batch = images(1000 + 10 * step + world.rank)
        loss = (trained(batch) - teacher(batch)).square().mean()
        loss.backward()
    after = teacher.state_dict()
    return {
        "outputs": (first, teacher(images(9))),
        "untouched": untouched,
        "same": before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before),
        "training": any(module.training for module in teacher.modules()),
        "gradients": [p.grad for p in teacher.parameters() if p.grad is not None or p.requires_grad],
        "asks": first.requires_grad,
        "learns": all(p.grad is not None for p in learner[1].parameters()),
    }


@pytest.fixture(scope="module")
def worlds(ranks, source):
    return ranks(WORLDS, taught, source)


def test_its_outputs_are_those_of_the_source_on_every_rank(worlds, source):
    theirs = Network(THEIRS).backbone.eval()
    with torch.no_grad():
        expected = theirs(images(9))
    fresh = backbones.build(THEIRS).eval()
    assert not torch.equal(fresh(images(9)), expected)
    for size in WORLDS:
        for told in worlds[size]:
            for name in source:
                for output in told[name]["outputs"]:
                    assert torch.equal(output, expected)


@pytest.mark.parametrize("size", WORLDS)
def test_it_neither_learns_nor_moves_while_another_learns_from_it(worlds, source, size):
    for told in worlds[size]:
        for name in source:
            found = told[name]
            assert found["same"] and not found["training"] and not found["asks"] and not found["gradients"]
            assert found["learns"]


def test_it_changes_nothing_of_what_is_drawn_beside_it(worlds, source):
    assert all(told[name]["untouched"] for size in WORLDS for told in worlds[size] for name in source)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copied(source, tmp_path):
    """The same sources in a place where they may be spoilt."""
    run, file = source["run"], source["file"]
    checkpoint = shutil.copytree(run.path, tmp_path / "step_00000012")
    shutil.copy(file.path, tmp_path / "weights.safetensors")
    return {
        "run": dataclasses.replace(run, path=str(checkpoint)),
        "file": dataclasses.replace(file, path=str(tmp_path / "weights.safetensors")),
    }


def spoil(path):
    """Another last byte: it still loads."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["run", "file"])
def test_what_changed_since_it_was_pinned_is_refused(copied, tmp_path, kind):
    frozen_network(job(ALONE, copied[kind]), "teacher")
    spoil(tmp_path / ("step_00000012/shared.safetensors" if kind == "run" else "weights.safetensors"))
    with pytest.raises(InputError, match=r"^method\.teacher=.*it has changed since this run was submitted; start"):
        frozen_network(job(ALONE, copied[kind]), "teacher")


@pytest.mark.parametrize("kind", ["run", "file"])
def test_what_is_gone_is_refused(source, tmp_path, kind):
    missing = dataclasses.replace(source[kind], path=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match=r"^method\.teacher=.*nothing: cannot be read .*; restore it"):
        frozen_network(job(ALONE, missing), "teacher")


def test_a_manifest_that_is_none_is_refused(copied, tmp_path):
    (tmp_path / "step_00000012" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match=r"^method\.teacher=.*cannot be read"):
        frozen_network(job(ALONE, copied["run"]), "teacher")


@pytest.mark.parametrize("kind", ["run", "file"])
def test_weights_of_another_backbone_are_refused(source, kind):
    other = dataclasses.replace(source[kind], backbone=OURS)
    with pytest.raises(InputError, match=rf"^method\.teacher=.*(other weights|another network) than {OURS}"):
        frozen_network(job(ALONE, other), "teacher")


def test_what_the_run_pinned_is_loaded_and_verified(copied, tmp_path):
    """The original may change, or go; the pin may not."""
    given = job(ALONE, copied["run"])
    given.run = RunDir(tmp_path / "run")
    pin = Path(shutil.copytree(copied["run"].path, tmp_path / "run/pinned/method.teacher/step_00000012"))
    spoil(tmp_path / "step_00000012" / "shared.safetensors")
    frozen_network(given, "teacher")
    file = pin / "shared.safetensors"
    size = int.from_bytes(file.read_bytes()[:8], "little") + 8  # of its header
    file.write_bytes(file.read_bytes()[:size] + bytes(file.stat().st_size - size))  # weights that are zeros
    with pytest.raises(InputError, match=r"^method\.teacher=.*pinned.*it has changed since this run was submitted"):
        frozen_network(given, "teacher")


def test_a_field_that_names_no_network_is_refused():
    with pytest.raises(InputError, match=r"^method\.teacher=null: it names no network; give a run"):
        frozen_network(job(ALONE, None), "teacher")
