"""Where the machine cannot read a file, nothing is wrong with the image: no other stands in for it, and the run ends as
one that may start again."""

import errno
import os
import resource
import tarfile

import numpy as np
import pytest
from away import install
from PIL import Image

from launcher.errors import RunFailed
from launcher.run import waiting
from methods.data import folder, shards
from methods.data.dataset import BrokenImage
from methods.data.decoding import OF_THE_MACHINE
from methods.data.folder import ImageFolder
from methods.data.loader import Request, batches
from methods.data.shards import ImageShards


@pytest.fixture(params=["folder", "tars"])
def dataset(request, tmp_path, monkeypatch):
    """Of four images, with texts where they are files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    images = tmp_path / "images"
    images.mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(images / f"{number}.png")
        (images / f"{number}.txt").touch()
    if request.param == "folder":
        return ImageFolder(images, "train")
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as tar:
        tar.add(images, arcname="")
    return ImageShards(tmp_path / "tars", "train")


def failing(monkeypatch, number: int) -> None:
    def refuse(file, *_, **__):
        raise OSError(number, os.strerror(number), file)

    for module in (folder, shards):
        monkeypatch.setattr(module, "open", refuse, raising=False)


@pytest.mark.parametrize("number", sorted(OF_THE_MACHINE), ids=errno.errorcode.get)
def test_it_is_said_with_the_file_and_the_node(dataset, monkeypatch, number):
    failing(monkeypatch, number)
    ways = [dataset.image, *([dataset.text] if isinstance(dataset, ImageFolder) else [])]
    for way in ways:
        with pytest.raises(RunFailed) as raised:
            way(2)
        line = str(raised.value)
        assert line.startswith("/") and f"cannot be read on {os.uname().nodename} ({os.strerror(number)})" in line
        assert ("`ulimit -n`" in line) == (number == errno.EMFILE)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES])
def test_a_file_that_is_gone_or_forbidden_is_the_images_fault(dataset, monkeypatch, number):
    failing(monkeypatch, number)
    with pytest.raises(BrokenImage, match=os.strerror(number)):
        dataset.image(2)


def too_few_files(dataset):
    """A view that leaves no descriptor for the image after the first: the limit is this worker's own."""

    def view(image, sample, epoch):
        limit = min(len(os.listdir("/proc/self/fd")) - 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        return np.asarray(image).transpose(2, 0, 1)

    return view


def test_a_worker_that_may_open_no_more_files_ends_the_epoch_with_that_line(tmp_path, monkeypatch):
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dataset = ImageFolder(tmp_path, "train")
    with pytest.raises(RunFailed) as raised:
        list(batches(dataset, too_few_files(dataset), [Request(np.arange(4), 0, {})], workers=1))
    line = str(raised.value)
    assert (
        "too many open files" in line.lower() and "`ulimit -n`" in line and "\n" not in line and "Traceback" not in line
    )


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_folder_that_cannot_be_listed_now_is_waited_for_and_no_wrong_input(number, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.0)
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "0.png", arcname="0.png")
    away = install(monkeypatch, number)
    for build, path in ((ImageFolder, tmp_path), (ImageShards, tmp_path / "a.tar")):
        away(path, times=1)
        assert len(waiting.patiently(lambda build=build: build(tmp_path, "train"))) == 1
