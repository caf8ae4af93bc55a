"""A run starts from all of a checkpoint's backbone or not at all: nothing is left as it was drawn."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from launcher.errors import InputError
from launcher.run.files import read_json
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.runtime.dist import World
from launcher.runtime.stateful import ModuleState
from launcher.spec.runspec import FromRun, InitFrom
from methods import backbones
from methods.engine.initialise import load_backbone

ALONE = World(0, 1, torch.device("cpu"))
NAME = "small_vgg"
LAST = "trunk.classifier.3.weight"


class Network(nn.Module):
    """A trainer's: the backbone under its name, and a head that does not belong to it."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(3, 2)


class Saved:
    """What a registered network saves, but for `spoil(its tensors)`."""

    def __init__(self, network, spoil):
        self._state, self._spoil = ModuleState(network), spoil

    def state(self):
        return self._spoil(dict(self._state.state()))


@pytest.fixture
def start(tmp_path):
    """`start(spoil)`: (a backbone that was to start from such a checkpoint, the one that was saved)."""

    def made(spoil=lambda state: state):
        torch.manual_seed(1)
        theirs = backbones.build(NAME, dropout=0.0)
        (tmp_path / "checkpoints").mkdir()
        owners = Owners(ALONE)
        owners.add("network", Saved(Network(theirs), spoil))
        path = Checkpointer(RunDir(tmp_path), ALONE, owners, keep=1, generation=1).save(7, 7)
        return begun(InitFrom(str(path), read_json(path / "manifest.json")["digest"]), tmp_path), theirs

    return made


def begun(source, tmp_path):
    """A backbone that started from `source`."""
    job = SimpleNamespace(
        spec=SimpleNamespace(init_from=source, continue_from=None),
        world=ALONE,
        run=RunDir(tmp_path / "a run that has not begun"),
        config=SimpleNamespace(backbone=NAME),
    )
    torch.manual_seed(2)
    ours = backbones.build(NAME, dropout=0.0)
    load_backbone(ours, job)
    return ours


def equal(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def named(state, change):
    """The tensors of a checkpoint, each name as `change` makes it."""
    return {change(name): value for name, value in state.items()}


SPOILED = {
    "one is missing": lambda state: {name: value for name, value in state.items() if not name.endswith(LAST)},
    "one too many": lambda state: {**state, "backbone.trunk.more": torch.zeros(3)},
    "another shape": lambda state: {**state, f"backbone.{LAST}": torch.zeros(5, 5)},
    "other names": lambda state: named(state, lambda name: name.replace("trunk", "body")),
    "no backbone": lambda state: named(state, lambda name: name.replace("backbone.", "encoder.")),
}


def test_the_whole_backbone_comes_from_the_checkpoint(start):
    ours, theirs = start()
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert equal(ours, theirs)


def test_of_a_run_it_is_the_checkpoint_that_the_ledger_says_was_taken_and_no_other(start, tmp_path):
    _, theirs = start()
    (path,) = RunDir(tmp_path).checkpoints()
    run = tmp_path / "a run that has not begun"
    (run / "events").mkdir(parents=True)
    source, pen = FromRun(str(tmp_path), "identity", None), Ledger(run, 1, "batch")
    with pytest.raises(InputError, match=r"^init_from=.*the ledger does not say which checkpoint was taken"):
        begun(source, tmp_path)
    said = {"field": "init_from", "path": str(path), "step": 7}
    pen.write("pinned", **said, digest="another")
    with pytest.raises(InputError, match=r"^init_from=.*step_00000007: it has changed since"):
        begun(source, tmp_path)
    pen.write("pinned", **said, digest=read_json(path / "manifest.json")["digest"])
    assert equal(begun(source, tmp_path), theirs)


@pytest.mark.parametrize("how", SPOILED)
def test_what_is_not_the_same_network_is_refused(start, how):
    with pytest.raises(InputError, match=f"^init_from=.*other weights than {NAME}'s.*use its own"):
        start(SPOILED[how])
