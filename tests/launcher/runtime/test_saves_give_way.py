"""A save behind the training takes what nobody else wants; one in haste takes its share."""

import errno
import fcntl
import os
import threading
from pathlib import Path

import pytest
import torch

from launcher.run.folder import RunDir
from launcher.run.manifest import checked
from launcher.runtime import checkpoint, shard
from launcher.runtime.checkpoint import LOWEST, Checkpointer, Owners, verify
from launcher.runtime.dist import World
from launcher.runtime.stateful import ValueState

ALONE = World(0, 1, torch.device("cpu"))
NUMBERS = torch.arange(300_000)


@pytest.fixture
def checkpoints(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    owners = Owners(ALONE)
    for file in ("shared", "group_000"):
        owners.add(file, ValueState(lambda: {"numbers": NUMBERS}, lambda _: None), shard=file)
    return Checkpointer(RunDir(tmp_path), ALONE, owners, keep=2, generation=1)


def niceness():
    """Of this thread, as the kernel says; proc(5): stat, field 19."""
    return int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[16])


@pytest.mark.parametrize("haste", [False, True])
def test_who_writes_and_sums_is_the_nicest_and_in_haste_as_the_training(checkpoints, monkeypatch, haste):
    found = {}

    def noted(module, name):
        call = getattr(module, name)

        def counted(*given, **more):
            found.setdefault(name, []).append((niceness(), threading.get_ident()))
            return call(*given, **more)

        monkeypatch.setattr(module, name, counted)

    for name in ("_write", "_sum", "read_back"):
        noted(shard, name)
    noted(checkpoint, "_waited_for_a_core")
    mine = niceness()
    checkpoints.begin(1, 10, haste=haste)
    assert verify(checkpoints.settle()) == ""
    assert niceness() == mine  # of the training, which goes on
    waited = found.pop("_waited_for_a_core", [])
    assert {*waited} == (set() if haste else {*found["_write"]})  # of the thread that writes, and no other
    wanted = mine if haste else LOWEST
    assert {nice for calls in found.values() for nice, _ in calls} == {wanted}
    assert set(found) == {"_write", "_sum"} | (set() if haste else {"read_back"})


def test_in_haste_the_files_are_written_at_once(checkpoints, monkeypatch):
    write, both = shard._write, threading.Barrier(2, timeout=60)

    def met(*given):
        both.wait()
        write(*given)

    monkeypatch.setattr(shard, "_write", met)
    checkpoints.begin(1, 10, haste=True)
    assert verify(checkpoints.settle()) == ""


@pytest.mark.parametrize("numbers", [1, 100, 4096, 10_000])
@pytest.mark.parametrize("past_memory", [True, False])
def test_it_is_the_same_file_of_any_size_whatever_the_file_system_can(tmp_path, monkeypatch, past_memory, numbers):
    def refused(file, command, *given):
        if command == fcntl.F_SETFL:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return asked(file, command, *given)

    asked, path, none = fcntl.fcntl, tmp_path / "file", {"abandon": lambda: False}
    monkeypatch.setattr(shard, "PIECE", 1 << 13)
    if not past_memory:
        monkeypatch.setattr(fcntl, "fcntl", refused)
    entry, _ = shard.write(
        path, {"owner/numbers": NUMBERS[:numbers], "owner/none": NUMBERS[:0]}, {"owner/a": 1}, **none
    )
    shard.read_back(path, entry, **none)
    assert path.stat().st_size == entry["size"] and checked(path, entry) == entry
    found = shard.read(path)["owner"]
    assert torch.equal(found["numbers"], NUMBERS[:numbers]) and found["none"].numel() == 0 and found["a"] == 1
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(OSError, match="reads back otherwise"):
        shard.read_back(path, entry, **none)


def fetched():
    """Bytes that this process has had read from disks. proc(5): io."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["read_bytes"])


def test_what_is_read_back_comes_from_the_disk_and_not_from_memory(tmp_path):
    path, none = tmp_path / "file", {"abandon": lambda: False}
    entry, _ = shard.write(path, {"owner/numbers": NUMBERS}, {}, **none)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        before = fetched()
        file.read()
    if fetched() - before < entry["size"]:
        pytest.skip("the temporary files lie in memory")
    before = fetched()
    shard.read_back(path, entry, **none)  # it is in memory, since it was read
    assert fetched() - before >= entry["size"]
