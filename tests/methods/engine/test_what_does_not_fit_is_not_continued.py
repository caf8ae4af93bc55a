"""A run is trained longer from all the state that its last checkpoint holds, or not at all."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from launcher.errors import InputError
from launcher.run.files import read_json
from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.runtime.dist import World
from launcher.runtime.stateful import ModuleState, ValueState
from launcher.spec.runspec import ContinueFrom
from launcher.spec.schema import TrainConfig
from methods.engine.initialise import continued

ALONE = World(0, 1, torch.device("cpu"))
NOW = ("network", "counter", "group")


class Training:
    """A linear layer of some width, a number, and a group with a file of its own; of them those that are named."""

    def __init__(self, folder, *, width=3, names=NOW):
        torch.manual_seed(width)
        self.layer, self.values = torch.nn.Linear(width, 2), {"at": 7}
        folder.joinpath("checkpoints").mkdir(parents=True)
        owners = Owners(ALONE)
        for name, owner, shard in (
            ("network", ModuleState(self.layer), "shared"),
            ("counter", ValueState(lambda: self.values, self.values.update), "shared"),
            ("group", ValueState(lambda: {"of": 1}, lambda state: state["of"]), "group_000"),
        ):
            if name in names:
                owners.add(name, owner, shard=shard)
        self.checkpoints = Checkpointer(RunDir(folder), ALONE, owners, keep=1, generation=1)


@pytest.fixture
def source(tmp_path):
    """`source(...)`: the last checkpoint of such a training, which ended at step 18 after two epochs."""

    def made(**options):
        training = Training(tmp_path / "first", **options)
        training.values["at"] = 18
        path = training.checkpoints.save(18, 18)
        return ContinueFrom(str(path), read_json(path / "manifest.json")["digest"], "first", 18, 2), training

    return made


def job_of(begun, **fields):
    said, run = [], SimpleNamespace(path=Path("/nowhere"))
    config = TrainConfig(name="toy", backbone="none", epochs=4, lr=0.5, **fields)
    spec, ledger = SimpleNamespace(continue_from=begun), SimpleNamespace(write=lambda *a, **b: said.append((a, b)))
    told = {"ledger": ledger, "notice": said.append, "said": said}
    return SimpleNamespace(spec=spec, run=run, world=ALONE, config=config, **told)


def refused(begun, training):
    with pytest.raises(InputError) as refusal:
        continued(job_of(begun), training.checkpoints, 9)
    assert str(refusal.value).endswith("train 4 epochs as a run of its own")
    return str(refusal.value)


def test_all_of_it_is_taken_over(source, tmp_path):
    begun, first = source()
    now = Training(tmp_path / "now")
    now.layer.weight.data.zero_()
    job = job_of(begun, schedule="cosine")
    assert continued(job, now.checkpoints, 9) == 18
    assert torch.equal(now.layer.weight, first.layer.weight) and now.values == {"at": 18}
    (event, fields), notice = job.said
    assert event == ("continued",) and (fields["step"], fields["steps"], fields["epochs"]) == (18, 36, [2, 4])
    assert fields["lr"][1] == pytest.approx(0.25) and fields["lr"][0] < 0.01
    assert notice == (
        "goes on from step 18 of first, its last, to 36; "
        "schedules are stretched: the learning rate was 0.0038 and is 0.25"
    )


def test_without_a_run_to_continue_there_is_nothing_to_load():
    assert continued(SimpleNamespace(spec=SimpleNamespace(continue_from=None), world=ALONE, config=None), None, 9) == 0


STATES = {
    "nothing here takes its counter": ({}, {"names": ("network", "group")}),
    "of its files only one has group_000.safetensors": ({}, {"names": ("network", "counter")}),
    "size mismatch for weight": ({"width": 4}, {}),
    "Missing key(s) in state_dict": ({"names": ("counter", "group")}, {}),
}


@pytest.mark.parametrize("reason", STATES)
def test_state_of_another_version_of_the_method_is_refused(source, tmp_path, reason):
    theirs, ours = STATES[reason]
    begun, _ = source(**theirs)
    line = refused(begun, Training(tmp_path / "now", **ours))
    assert line.startswith("continue_from=first: its state is not that of toy as it is now (") and reason in line


@pytest.mark.parametrize("what", ["gone", "damaged", "another"])
def test_a_checkpoint_that_is_not_the_one_of_then_is_refused(source, tmp_path, what):
    begun, _ = source()
    folder = tmp_path / "first" / "checkpoints" / "step_00000018"
    if what == "gone":
        shutil.rmtree(folder)
    elif what == "damaged":
        (folder / "shared.safetensors").write_bytes(b"x" * (folder / "shared.safetensors").stat().st_size)
    begun = replace(begun, digest="0" * 64) if what == "another" else begun
    line = refused(begun, Training(tmp_path / "now"))
    says = {"gone": "FileNotFoundError", "damaged": "is not what was written", "another": "it has changed since"}
    assert line.startswith(f"continue_from={folder}: cannot be read (") and says[what] in line
