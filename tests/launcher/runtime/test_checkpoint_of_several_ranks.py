"""A checkpoint of several ranks holds the parts of all of them, or is not there: what one could not write, none has."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch

from launcher.errors import RunFailed
from launcher.run.folder import RunDir
from launcher.runtime import shard
from launcher.runtime.checkpoint import Checkpointer, Owners, SaveFailed, verify

RANKS = 3


class Value:
    """State that is a function of one number."""

    def __init__(self):
        self.value = 0

    def state(self):
        return {"weight": torch.full((1000,), float(self.value)), "value": self.value}

    def load_state(self, state):
        self.value = state["value"]
        assert (state["weight"] == self.value).all()


class Saving:
    """One rank's part of a run: what is equal on all, and what it has alone."""

    def __init__(self, world, folder):
        self.world, self.run = world, RunDir(Path(folder))
        self.shared, self.own = Value(), Value()
        owners = Owners(world)
        owners.add("network", self.shared)
        owners.add("part", self.own, shard=f"part_{world.rank:03d}", writes=True)
        self._checkpoints = Checkpointer(self.run, world, owners, keep=5, generation=1)

    def save(self, step):
        """The reason why it could not be saved, or nothing."""
        self.shared.value, self.own.value = step, 100 * step + self.world.rank
        try:
            self._checkpoints.save(step, 1000)
        except SaveFailed as error:
            return str(error)
        return ""

    def restore(self):
        """(step, what is shared, what is this rank's own); None where all are broken."""
        try:
            step = self._checkpoints.restore()
        except RunFailed:
            return None
        return step, self.shared.value, self.own.value


def save_and_restore(world, folder):
    saving = Saving(world, folder)
    said = [saving.save(1), saving.save(2)]
    return said, Saving(world, folder).restore()


def with_a_full_disk(world, folder, victim):
    """Step 1 is saved; in the middle of step 2 the disk of the rank `victim` is full; step 3 is saved again."""
    saving, write = Saving(world, folder), shard.write
    said = [saving.save(1)]

    def full(*_given, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if world.rank == victim:
        shard.write = full
    said.append(saving.save(2))
    world.barrier()  # rank 0 removes what was begun
    there = sorted(path.name for path in saving.run.path.joinpath("checkpoints").iterdir())
    shard.write = write
    restored = Saving(world, folder).restore()
    said.append(saving.save(3))
    return said, there, restored, Saving(world, folder).restore()


def after_damage(world, folder):
    return Saving(world, folder).restore()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def checkpoint(folder, step):
    return folder / "checkpoints" / f"step_{step:08d}"


def test_every_ranks_part_is_in_the_manifest_and_comes_back_to_it(ranks, folder):
    found = ranks(RANKS, save_and_restore, str(folder))
    assert found == [(["", ""], (2, 2, 200 + rank)) for rank in range(RANKS)]
    files = json.loads((checkpoint(folder, 2) / "manifest.json").read_text())["files"]
    assert sorted(files) == [
        "part_000.safetensors",
        "part_001.safetensors",
        "part_002.safetensors",
        "shared.safetensors",
    ]
    assert verify(checkpoint(folder, 2)) == ""


@pytest.mark.parametrize("victim", [0, RANKS - 1])
def test_what_one_rank_could_not_write_no_rank_has(ranks, folder, victim):
    found = ranks(RANKS, with_a_full_disk, str(folder), victim)
    for rank, (said, there, restored, at_last) in enumerate(found):
        assert said == ["", f"rank {victim}: {os.strerror(errno.ENOSPC)}", ""]
        assert there == ["step_00000001"]
        assert restored == (1, 1, 100 + rank) and at_last == (3, 3, 300 + rank)


def test_damage_to_any_ranks_part_sends_all_ranks_back(ranks, folder):
    ranks(RANKS, save_and_restore, str(folder))
    last = checkpoint(folder, 2) / f"part_{RANKS - 1:03d}.safetensors"
    last.write_bytes(last.read_bytes()[:-1] + b"x")
    assert ranks(RANKS, after_damage, str(folder)) == [(1, 1, 100 + rank) for rank in range(RANKS)]
