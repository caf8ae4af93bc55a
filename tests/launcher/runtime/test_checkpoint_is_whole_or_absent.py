"""A checkpoint is there whole or not at all, whatever happens to the disk or to the process."""

import errno
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from launcher.errors import RunFailed, Superseded
from launcher.run.folder import RunDir
from launcher.runtime import shard
from launcher.runtime.checkpoint import Checkpointer, Owners, SaveFailed, load_tensors, verify
from launcher.runtime.dist import World

pytestmark = pytest.mark.fault

ALONE = World(0, 1, torch.device("cpu"))


class Counter:
    """State that is a function of one number."""

    def __init__(self, value=0):
        self.value = value

    def state(self):
        weight = torch.arange(12.0).view(3, 4) + self.value
        return {"weight": weight.t(), "half": weight.bfloat16(), "ids": torch.tensor(self.value), "note": [self.value]}

    def load_state(self, state):
        self.value = state["note"][0]
        assert all(torch.equal(state[key], value) for key, value in self.state().items() if key != "note")


class Store:
    """A run's checkpoints, of one value in two shards."""

    def __init__(self, folder, keep=2):
        self.run, self.shared, self.owned = RunDir(folder), Counter(), Counter()
        self.folder = folder / "checkpoints"
        self.folder.mkdir(exist_ok=True)
        owners = Owners(ALONE)
        owners.add("network", self.shared)
        owners.add("sub_classifier", self.owned, shard="group_000", writes=True)
        self._checkpoints = Checkpointer(self.run, ALONE, owners, keep=keep, generation=1)

    def save(self, step):
        self.shared.value = self.owned.value = step
        return self._checkpoints.save(step, 100)

    def restore(self):
        step = self._checkpoints.restore()
        assert self.shared.value == self.owned.value == step
        return step

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.save(5)
    store.save(10)
    return store


def manifest(path):
    return json.loads((path / "manifest.json").read_text())


def test_a_start_that_stood_still_takes_no_checkpoint_of_a_later_one_for_its_own(store, ledgers):
    (store.run.path / "events").mkdir()
    ledgers.start(store.run)
    assert store.save(10).name == "step_00000010"
    ledgers.start(store.run)
    for step in (10, 15):
        with pytest.raises(Superseded, match="start 2 of this run has begun, and this is start 1"):
            store.save(step)
    assert store.names() == ["step_00000005", "step_00000010"]


# -- what holds of a good one ------------------------------------------------------------------------------------------


def test_nothing_saved_is_step_0(tmp_path):
    assert Store(tmp_path).restore() == 0


def test_the_newest_is_restored_bit_for_bit(store, tmp_path):
    fresh = Store(tmp_path)
    assert fresh.restore() == 10
    assert fresh.shared.value == 10


def test_it_is_not_there_before_it_is_whole(tmp_path):
    store = Store(tmp_path)
    seen = []
    state = store.owned.state
    store.owned.state = lambda: seen.append(store.run.checkpoints()) or state()
    store.save(5)
    assert seen == [[]]
    assert store.names() == ["step_00000005"] and verify(store.folder / "step_00000005") == ""


def test_equal_state_has_an_equal_digest_and_other_state_another(tmp_path):
    digests = []
    for name, step, value in (("a", 1, 7), ("b", 1, 7), ("c", 1, 8)):
        (tmp_path / name).mkdir()
        store = Store(tmp_path / name)
        store.save(step)
        store.shared.value = value
        digests.append(manifest(store._checkpoints.save(step + 1, 100))["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_one_owners_tensors_can_be_read_alone(store):
    tensors = load_tensors(store.folder / "step_00000010", "sub_classifier", "group_000")
    assert set(tensors) == {"weight", "half", "ids"} and tensors["ids"].item() == 10


def test_the_newest_are_kept_and_older_ones_go(tmp_path):
    store = Store(tmp_path, keep=3)
    for step in (1, 2, 30, 4, 500):
        store.save(step)
    assert store.names() == ["step_00000004", "step_00000030", "step_00000500"]


def test_behind_a_link_none_goes_and_that_is_said(tmp_path, capsys):
    theirs = tmp_path / "theirs"
    (theirs / ".saving-00000001-abcd").mkdir(parents=True)
    (tmp_path / "checkpoints").symlink_to(theirs)
    store = Store(tmp_path, keep=1)
    for step in (5, 10):
        store.save(step)
    assert store.restore() == 10
    assert store.names() == [".saving-00000001-abcd", "step_00000005", "step_00000010"]
    assert f"{tmp_path}/checkpoints: it is a link, and what it leads to stays" in capsys.readouterr().out


def test_one_in_haste_is_the_same_and_no_older_one_goes_for_it(tmp_path):
    store = Store(tmp_path, keep=1)
    store.save(5)
    digest = manifest(store.folder / "step_00000005")["digest"]
    store._checkpoints.begin(6, 100, haste=True)
    assert manifest(store._checkpoints.settle())["digest"] == digest
    assert store.names() == ["step_00000005", "step_00000006"]
    assert verify(store.folder / "step_00000006") == ""
    store.save(7)
    assert store.names() == ["step_00000007"] and store.restore() == 7


def test_the_same_step_is_saved_once(store):
    before = manifest(store.folder / "step_00000010")
    store.shared.value = 11
    store._checkpoints.save(10, 100)
    assert manifest(store.folder / "step_00000010") == before and store.restore() == 10


def test_the_last_word_of_a_run_waits_for_the_save_under_way(store, monkeypatch):
    write, failed = shard.write, []

    def slowly(*args, **more):
        time.sleep(0.2)
        if failed:
            raise failed[0]
        return write(*args, **more)

    monkeypatch.setattr(shard, "write", slowly)
    store._checkpoints.begin(15, 100)
    assert store._checkpoints.last().name == "step_00000015"
    failed.append(OSError(errno.ENOSPC, "No space left on device"))
    store._checkpoints.begin(20, 100)
    assert store._checkpoints.last().name == "step_00000015"


# -- what is broken is set aside ---------------------------------------------------------------------------------------


def flip_a_byte(path, at=0.5):
    content = bytearray(path.read_bytes())
    content[int(len(content) * at)] ^= 1
    path.write_bytes(content)


def edit_manifest(**fields):
    return lambda path: (path / "manifest.json").write_text(json.dumps({**manifest(path), **fields}))


def forget_a_shard(path):
    files = manifest(path)["files"]
    del files["group_000.safetensors"]
    edit_manifest(files=files)(path)


DAMAGES = {
    "flipped byte of a tensor": lambda path: flip_a_byte(path / "shared.safetensors", 0.999),
    "flipped byte of a header": lambda path: flip_a_byte(path / "group_000.safetensors", 0.1),
    "truncated shard": lambda path: os.truncate(path / "shared.safetensors", 100),
    "empty shard": lambda path: os.truncate(path / "group_000.safetensors", 0),
    "missing shard": lambda path: (path / "group_000.safetensors").unlink(),
    "missing manifest": lambda path: (path / "manifest.json").unlink(),
    "truncated manifest": lambda path: os.truncate(path / "manifest.json", 40),
    "empty manifest": lambda path: os.truncate(path / "manifest.json", 0),
    "manifest of another kind": lambda path: (path / "manifest.json").write_text("[]"),
    "manifest with another step": edit_manifest(step=9),
    "manifest without a step": edit_manifest(step=None),
    "manifest with another digest": edit_manifest(digest="0" * 64),
    "manifest without files": edit_manifest(files={}),
    "manifest that forgets a shard": forget_a_shard,
    "a file in its place": lambda path: (shutil.rmtree(path), path.write_text("")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_one_is_set_aside_and_the_older_one_loaded(store, damage, capsys):
    DAMAGES[damage](store.folder / "step_00000010")
    assert store.restore() == 5
    assert [p.name for p in store.run.checkpoints()] == ["step_00000005"]
    assert len(list(store.folder.glob("broken-step_00000010-*"))) == 1
    assert "step_00000010 is set aside" in capsys.readouterr().out
    assert store.save(10).is_dir() and store.restore() == 10


def test_where_none_can_be_read_the_run_fails_and_does_not_begin_anew(store):
    for path in store.run.checkpoints():
        flip_a_byte(path / "shared.safetensors")
    with pytest.raises(RunFailed, match="no checkpoint"):
        store.restore()
    with pytest.raises(RunFailed):  # nor does the next resume
        store.restore()


def test_what_a_killed_life_left_is_ignored_and_removed(store):
    beside = store.folder / ".saving-00000015-abc"
    shutil.copytree(store.folder / "step_00000010", beside)
    assert store.run.checkpoints()[-1].name == "step_00000010"
    assert store.restore() == 10
    assert not beside.exists()


# -- a save that fails leaves the old one ------------------------------------------------------------------------------


@pytest.mark.parametrize("nth", [1, 2, 3], ids=["first shard", "second shard", "manifest"])
def test_a_full_disk_leaves_what_was_there(store, monkeypatch, nth):
    calls, fsync = [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveFailed, match="No space left"):
        store.save(15)
    assert store.names() == ["step_00000005", "step_00000010"]
    assert store.restore() == 10
    assert store.save(15).is_dir() and store.restore() == 15  # there is space again


def test_a_disk_that_stores_something_else_is_noticed_at_once(store, monkeypatch):
    monkeypatch.setattr(shard, "_stored", lambda path: [b"something else"])
    with pytest.raises(SaveFailed, match="reads back otherwise"):
        store.save(15)
    monkeypatch.undo()
    assert store.restore() == 10


def test_a_folder_that_is_gone_is_a_failed_save(store):
    shutil.rmtree(store.folder)
    with pytest.raises(SaveFailed):
        store.save(15)


# -- killed in the middle of a save ------------------------------------------------------------------------------------

CALLS = [(Path, "mkdir"), (Path, "open"), (os, "fsync"), (Path, "rename"), (shutil, "rmtree")]


def killed_at(folder, nth):
    """Save step 15 in a child that is killed before its nth call that changes the disk; False where it has fewer."""
    child = os.fork()
    if child == 0:
        store, count = Store(folder), 0

        def lethal(call):
            def counted(*args, **kwargs):
                nonlocal count
                count += 1
                if count == nth:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)

            return counted

        for owner, name in CALLS:
            setattr(owner, name, lethal(getattr(owner, name)))
        store.save(15)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0


def kill_everywhere(world, folder):
    """[step restored after a kill, what is in the folder then] for each point of a save; in a process of its own, which
    has no threads that a child would miss."""
    outcomes, nth = [], 1
    while True:
        run = folder / str(nth)
        run.mkdir()
        Store(run).save(5)
        Store(run).save(10)
        if not killed_at(run, nth):
            return outcomes
        outcomes.append((Store(run).restore(), Store(run).names()))
        nth += 1


def test_a_kill_at_any_point_of_a_save_leaves_the_old_or_the_new(ranks, tmp_path):
    (outcomes,) = ranks(1, kill_everywhere, tmp_path)
    steps = [step for step, _ in outcomes]
    assert {10, 15} == set(steps) and steps == sorted(steps) and len(steps) >= 8
    for step, names in outcomes:
        assert f"step_{step:08d}" in names and all(name.startswith("step_") for name in names)
