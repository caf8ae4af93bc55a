"""A file that did not change since the checkpoint before is a link of that one, read back, and anew after a few."""

import os

import pytest
import torch

from launcher.run import pruning
from launcher.run.files import read_json
from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import LINKS, Checkpointer, Owners, SaveFailed, verify
from launcher.runtime.dist import World
from launcher.runtime.stateful import ValueState
from launcher.slurm import commands

pytestmark = pytest.mark.fault

ALONE = World(0, 1, torch.device("cpu"))
STILL, MOVING = "still.safetensors", "shared.safetensors"


class Saving:
    """A run of which one file changes at every step, and one where somebody says so."""

    def __init__(self, folder, keep=2):
        self.run = RunDir(folder)
        (folder / "checkpoints").mkdir(exist_ok=True)
        self.still, self.step = torch.arange(10_000), 0
        self.owners = Owners(ALONE)
        self.owners.add("network", ValueState(lambda: {"step": torch.tensor(self.step)}, self._load_step))
        self.owners.add("labels", ValueState(lambda: {"labels": self.still}, self._load_still), shard="still")
        self.checkpoints = Checkpointer(self.run, ALONE, self.owners, keep=keep, generation=1)

    def _load_step(self, state):
        self.step = int(state["step"])

    def _load_still(self, state):
        self.still = state["labels"]

    def save(self, step, *, haste=False):
        self.step = step
        self.checkpoints.begin(step, 100, haste=haste)
        path = self.checkpoints.settle()
        assert verify(path) == ""
        return path


@pytest.fixture
def saving(tmp_path):
    return Saving(tmp_path)


def are_links(first, second, name=STILL):
    return (first / name).samefile(second / name)


def damage(file):
    """In its place, as a disk does it: under every name that the file has."""
    with file.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"x")


def test_it_is_linked_and_what_changed_is_written(saving):
    first, second = saving.save(1), saving.save(2)
    assert are_links(first, second) and not are_links(first, second, MOVING)
    old, new = (read_json(path / "manifest.json")["files"] for path in (first, second))
    assert old[STILL] == new[STILL] and old[MOVING] != new[MOVING]


def test_one_number_that_is_another_is_enough_to_write_it(saving):
    first = saving.save(1)
    saving.still[5000] += 1
    assert not are_links(first, saving.save(2))
    saving.still = saving.still[:-1]
    assert not are_links(saving.run.checkpoints()[-1], saving.save(3))


def test_the_link_outlives_the_elder_and_is_restored(saving, tmp_path):
    for step in range(1, LINKS + 2):
        newest = saving.save(step)
    assert len(saving.run.checkpoints()) == 2 and (newest / STILL).stat().st_nlink == 2
    pruned = pruning.find(saving.run, 1, commands.jobs).doomed
    assert [(item.path.name, item.size) for item in pruned] == [
        (f"step_{LINKS:08d}", sum(f.stat().st_size for f in newest.glob("[!s]*")) + (newest / MOVING).stat().st_size)
    ]  # what stays is not counted
    pruning.delete(pruned, tmp_path)
    again = Saving(tmp_path)
    again.still = torch.zeros(1)
    assert again.checkpoints.restore() == LINKS + 1
    assert torch.equal(again.still, saving.still)


def test_after_some_links_it_is_written_anew(tmp_path):
    saving = Saving(tmp_path, keep=100)
    paths = [saving.save(step) for step in range(1, 2 * LINKS + 3)]
    assert [are_links(paths[0], path) for path in paths] == [True] * (LINKS + 1) + [False] * (LINKS + 1)
    assert [are_links(paths[-1], path) for path in paths] == [False] * (LINKS + 1) + [True] * (LINKS + 1)


def test_what_was_damaged_on_the_disk_is_not_linked_but_written(saving):
    first = saving.save(1)
    damage(first / STILL)
    second = saving.save(2)
    assert not are_links(first, second) and verify(first) == f"{STILL} is not what was written"


def test_one_that_somebody_put_a_link_in_the_place_of_is_not_linked_but_written(saving, tmp_path):
    first = saving.save(1)
    (first / STILL).rename(tmp_path / "elsewhere")
    (first / STILL).symlink_to(tmp_path / "elsewhere")
    second = saving.save(2)
    assert not (second / STILL).is_symlink() and (second / STILL).stat().st_nlink == 1


def test_damage_to_a_file_of_two_is_found_in_both(saving):
    first, second = saving.save(1), saving.save(2)
    damage(second / STILL)
    assert verify(first) == verify(second) == f"{STILL} is not what was written"


def test_one_that_was_not_read_back_is_no_elder(saving):
    first = saving.save(1, haste=True)
    second = saving.save(2)
    assert not are_links(first, second)
    assert not are_links(second, saving.save(3, haste=True))


def test_where_links_cannot_be_it_is_written(saving, monkeypatch):
    first = saving.save(1)
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(PermissionError(1, "not permitted")))
    assert not are_links(first, saving.save(2))


def test_after_a_save_that_failed_it_is_written(saving, monkeypatch):
    first, rename = saving.save(1), type(saving.run.path).rename
    monkeypatch.setattr(type(saving.run.path), "rename", lambda *_: (_ for _ in ()).throw(OSError(5, "broken")))
    with pytest.raises(SaveFailed, match="broken"):
        saving.save(2)
    monkeypatch.setattr(type(saving.run.path), "rename", rename)
    assert not are_links(first, saving.save(3))
