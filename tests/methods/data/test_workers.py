"""What workers need of the machine, and what is said where it fails them: never a batch that is waited for in vain."""

import ctypes
import multiprocessing
import os
import tempfile
from multiprocessing import resource_sharer

import numpy as np
import pytest
import torch
from PIL import Image

from launcher.errors import InputError, RunFailed, line_of
from methods.data import workers
from methods.data.loader import Request, batches


class Blank:
    """64 images."""

    channels, classes, labels = 3, None, None

    def __len__(self):
        return 64

    def image(self, index):
        return Image.new("RGB", (8, 8))

    def name_of(self, index):
        return str(index)


def view(image, sample, epoch):
    return np.full((3, 4, 4), sample, np.uint8)


def made(view=view, count=6):
    return list(batches(Blank(), view, [Request(np.arange(8), epoch, {}) for epoch in range(count)], workers=2))


def raised(view=view, error=Exception):
    with pytest.raises(error) as caught:
        made(view)
    return str(caught.value)


@pytest.mark.parametrize("length", [75, 76, 117, 200])
def test_workers_serve_whatever_the_length_of_tmpdir(tmp_path, monkeypatch, length):
    folder = str(tmp_path / "t")
    folder += "x" * (length - len(folder))
    os.mkdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    before = set(os.listdir("/tmp"))
    assert [int(batch.images.sum()) for batch in made()] == [28 * 48] * 6
    assert tempfile.gettempdir() == folder and not os.listdir(folder)
    assert not [name for name in set(os.listdir("/tmp")) - before if name.startswith("pymp-")], "a socket was left"


def test_the_dataset_of_a_worker_still_has_the_temporary_files_where_they_were(tmp_path, monkeypatch):
    folder = str(tmp_path / ("x" * 120))
    os.mkdir(folder)
    monkeypatch.setattr(tempfile, "tempdir", folder)

    def spy(image, sample, epoch):
        return np.full((1,), tempfile.gettempdir() == folder, np.uint8)

    assert all(bool(batch.images.all()) for batch in made(spy))


def test_a_tmpdir_that_is_too_long_with_no_other_folder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * 116)
    monkeypatch.setattr(workers, "SHORT", (str(tmp_path / "gone"),))
    line = raised(error=InputError)
    assert line.startswith("TMPDIR=/xxx") and "117 bytes are too long for the sockets of data-loader workers" in line
    assert "give one of at most 75, or method.workers=0" in line and "\n" not in line


def test_a_batch_that_cannot_be_handed_over_ends_the_wait_with_the_reason(monkeypatch):
    """Python's queue leaves it out, prints a traceback, and the main process waits for ever."""

    def refuse(self, *_):
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(resource_sharer._ResourceSharer, "register", refuse)
    assert raised(error=RuntimeError) == "OSError: AF_UNIX path too long"


def lacking(monkeypatch, text):
    def refuse(self, size):
        raise RuntimeError(text)

    monkeypatch.setattr(torch.TypedStorage, "_new_shared", refuse)


FULL = "unable to allocate shared memory(shm) for file </torch_7_0>: No space left on device (28)"  # torch 2.15's words


@pytest.mark.parametrize(("total", "kind"), [(1000, InputError), (10**9, RunFailed)])
def test_shared_memory_that_is_too_small_is_named_with_its_size_and_the_fix(monkeypatch, total, kind):
    """Too small for what is asked: not tried again. Filled by others: it may be."""
    lacking(monkeypatch, FULL)
    monkeypatch.setattr(workers.shutil, "disk_usage", lambda _: type("Usage", (), {"total": total, "free": 500}))
    line = raised(error=kind)
    assert line.startswith("method.workers=2: " if kind is InputError else "no room")
    said = f"/dev/shm on {os.uname().nodename} has {total / 1e6:,.1f} MB, 0.0 of them free; give it more"
    assert f"no room for batches of 0.0 MB from 2 workers: {said} (of a container, --shm-size)" in line
    assert "Traceback" not in line and "\n" not in line


def test_too_many_open_files_are_named_with_their_limit(monkeypatch):
    lacking(
        monkeypatch, "unable to open shared memory object </torch_7_0> in read-write mode: Too many open files (24)"
    )
    line = raised(error=RunFailed)
    assert line.startswith("too many open files for batches from workers, ") and "`ulimit -n`" in line


def in_a_megabyte(ours):
    """In a process of its own: a mount that no other process sees, and what is raised then."""
    libc, new_mounts, private = ctypes.CDLL(None, use_errno=True), 0x20000, 0x44000
    mounted = not libc.unshare(new_mounts) and not libc.mount(b"none", b"/", None, private, None)
    mounted = mounted and not libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=1m")
    ours.send(raised(lambda *_: np.zeros((3, 400, 400), np.uint8)) if mounted else "")


def test_a_real_shared_memory_of_a_megabyte():
    theirs, ours = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=in_a_megabyte, args=(ours,))
    child.start()
    line = theirs.recv() if theirs.poll(60) else "no answer"
    child.join()
    if not line:
        pytest.skip("nothing can be mounted here")
    assert line.startswith("method.workers=2: no room for batches of 3.8 MB from 2 workers: /dev/shm on ")
    assert " has 1.0 MB, " in line


def test_of_an_exception_in_a_worker_the_line_says_what_it_said():
    def fails(image, sample, epoch):
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError(f"sample {sample}:\n  two lines of it") from error

    with pytest.raises(ValueError) as caught:
        made(fails)
    assert line_of(caught.value) == "ValueError: sample 0: two lines of it"


def test_any_other_exception_is_its_type_and_words():
    assert line_of(ValueError("a\n b")) == "ValueError: a b"
    assert line_of(OSError(28, "No space left on device")) == "OSError: [Errno 28] No space left on device"
    assert len(line_of(ValueError("x" * 9999))) == 500
    assert line_of(RuntimeError("Traceback (most recent call last):\n  File ...")).startswith("RuntimeError: Traceback")
