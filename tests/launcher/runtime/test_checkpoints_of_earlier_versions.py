"""A checkpoint whose manifest has sha256 in place of xxh3, as earlier versions wrote it, is what it was."""

import hashlib
import json

import pytest
import torch

from launcher.run import manifest
from launcher.run.files import NotOurs
from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.runtime.dist import World
from launcher.runtime.stateful import ValueState

ALONE = World(0, 1, torch.device("cpu"))


class Run:
    """Two files that hold one number."""

    def __init__(self, folder):
        (folder / "checkpoints").mkdir(exist_ok=True)
        self.numbers = {"shared": 0, "group_000": 0}
        owners = Owners(ALONE)
        for file in self.numbers:
            owners.add(
                file, ValueState(lambda file=file: self._state(file), lambda s, f=file: self._load(f, s)), shard=file
            )
        self.checkpoints = Checkpointer(RunDir(folder), ALONE, owners, keep=5, generation=1)

    def _state(self, file):
        return {"numbers": torch.full((100,), self.numbers[file])}

    def _load(self, file, state):
        self.numbers[file] = int(state["numbers"][0])

    def save(self, step):
        self.numbers = dict.fromkeys(self.numbers, step)
        return self.checkpoints.save(step, 100)


def as_of_old(path, only=None):
    """Rewrite its manifest as it was written when it had sha256; of the file `only`, if one is named."""
    found = json.loads((path / "manifest.json").read_text())
    for name, entry in found["files"].items():
        if only in (None, name):
            content = (path / name).read_bytes()
            found["files"][name] = {"size": entry["size"], "sha256": hashlib.sha256(content).hexdigest()}
    sums = {name: e.get("sha256") or e["xxh3"] for name, e in sorted(found["files"].items())}
    found["digest"] = hashlib.sha256(json.dumps(sums).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(found))


def flip(file, at):
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def test_it_is_restored_and_the_next_ones_are_of_now(tmp_path):
    path = Run(tmp_path).save(3)
    as_of_old(path)
    again = Run(tmp_path)
    assert manifest.verify(path) == "" and again.checkpoints.restore() == 3
    assert again.numbers == {"shared": 3, "group_000": 3}
    newest = again.save(4)
    kinds = [{kind for entry in manifest.read(p)["files"].values() for kind in entry} for p in (path, newest)]
    assert kinds == [{"size", "sha256"}, {"size", "xxh3"}]
    assert Run(tmp_path).checkpoints.restore() == 4
    flip(newest / "shared.safetensors", -1)
    assert Run(tmp_path).checkpoints.restore() == 3


@pytest.mark.parametrize("at", [0, 9, 300, -1])
@pytest.mark.parametrize("file", ["shared.safetensors", "group_000.safetensors"])
@pytest.mark.parametrize("old", ["none", "all", "shared.safetensors"])
def test_a_changed_byte_anywhere_is_found(tmp_path, old, file, at):
    path = Run(tmp_path).save(3)
    if old != "none":
        as_of_old(path, None if old == "all" else old)
    assert manifest.verify(path) == ""
    flip(path / file, at)
    assert manifest.verify(path) == f"{file} is not what was written"


def test_the_digest_is_that_of_the_sums(tmp_path):
    digests = []
    for folder, step, number in (("a", 3, 7), ("b", 5, 7), ("c", 5, 8)):
        (tmp_path / folder).mkdir()
        run = Run(tmp_path / folder)
        run.numbers = {"shared": 7, "group_000": number}
        digests.append(manifest.read(run.checkpoints.save(step, 100))["digest"])
    assert digests[0] == digests[1] != digests[2]


def test_a_file_without_a_sum_is_no_file_of_a_checkpoint(tmp_path):
    path = Run(tmp_path).save(3)
    found = json.loads((path / "manifest.json").read_text())
    del found["files"]["shared.safetensors"]["xxh3"]
    (path / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(NotOurs, match="files"):
        manifest.read(path)
