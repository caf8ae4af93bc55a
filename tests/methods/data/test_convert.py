"""Images -> tars: always the same bytes, stopped and gone on with, nothing overwritten."""

import errno
import json
import os
import subprocess
import sys
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image

from launcher.errors import InputError
from methods.data import convert as module
from methods.data.convert import convert
from methods.data.folder import ImageFolder
from methods.data.shard_index import index_all
from methods.data.shards import ImageShards


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def images(tmp_path):
    """60 images in two classes, some with names that tars of this layout have no room for."""
    folder = tmp_path / "images"
    names = [f"{n}.png" for n in range(53)]
    names += ["0.PNG", "0.bmp", "0.a.png", "0.a.bmp", "a.b.png", "a%2Eb.png", "n" * 200 + ".png"]
    for number, name in enumerate(names):
        file = folder / ("cat", "dog/sub")[number % 2] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (12, 12, 3), np.uint8)
        Image.fromarray(pixels).save(file, format="PNG")
    (folder / "cat" / "broken.png").write_bytes(b"no picture")
    return folder


def small(source, out, **options):
    return convert(source, out, **{"size_mb": 0.02, "threads": 3, **options})


def content(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*.tar"))}


def refused(*arguments, **options):
    with pytest.raises(InputError) as error:
        small(*arguments, **options)
    message = str(error.value)
    assert "; " in message and "\n" not in message
    return message


def assert_same(folder, shards):
    for split in ("train", "test"):
        here, there = ImageFolder(folder, split), ImageShards(shards, split)
        assert [there.name_of(i).partition(": ")[2] for i in range(len(there))] == [
            here.name_of(i).removeprefix("train/").removeprefix("val/") for i in range(len(here))
        ]
        assert here.classes == there.classes and np.array_equal(here.labels, there.labels)
        for i in range(len(here)):
            if "broken" not in here.name_of(i):
                assert np.array_equal(np.asarray(here.image(i)), np.asarray(there.image(i)))


def test_shards_are_the_data_set_that_the_folder_is(images, tmp_path):
    """The same images in the same order with the same labels, and the same test split."""
    told = []
    answer = small(images, tmp_path / "out", progress=lambda *word: told.append(word))
    tars = content(tmp_path / "out")
    assert answer["images"] == 61 and answer["classes"] == 2 and answer["kept"] == 0
    assert answer["shards"] == len(tars) > 3 and answer["bytes"] == sum(map(len, tars.values()))
    assert all(len(tar) < 0.02e6 + tarfile.RECORDSIZE + 1 for tar in tars.values())
    assert_same(images, tmp_path / "out")
    assert told[0] == ("images measured", 61, 61) and told[-1][0] == "bytes written" and told[-1][1] == told[-1][2]


def test_splits_and_a_folder_without_labels(images, tmp_path):
    os.makedirs(tmp_path / "both")
    for name in ("train", "val"):
        (tmp_path / "both" / name).symlink_to(images)
    small(tmp_path / "both", tmp_path / "out")
    assert {os.path.dirname(name) for name in content(tmp_path / "out")} == {"train", "val"}
    assert_same(tmp_path / "both", tmp_path / "out")
    answer = small(images, tmp_path / "bare", labels="none")
    assert answer["classes"] is None and not (tmp_path / "bare" / "classes.json").exists()
    assert len(ImageShards(tmp_path / "bare", "train")) == 61


def test_the_same_images_give_the_same_bytes(images, tmp_path):
    small(images, tmp_path / "one")
    for file in images.rglob("*.png"):
        os.utime(file, (1, 1))
        file.chmod(0o600)
    small(images, tmp_path / "two", threads=1)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_any_webdataset_reader_sees_one_image_and_one_label_a_key(images, tmp_path):
    small(images, tmp_path / "out")
    groups = {}
    for file in sorted((tmp_path / "out").glob("*.tar")):
        with tarfile.open(file) as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                key, _, extension = name.partition(".")
                groups.setdefault((folder, key), []).append(extension)
    assert len(groups) == 61 and all(len(each) == 2 and each[0] == "cls" for each in groups.values())


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("after", [0, 1, 17, 50])
def test_stopped_anywhere_and_started_again_it_ends_the_same(images, tmp_path, monkeypatch, threads, after):
    small(images, tmp_path / "whole")
    read, left = module._content, [after]
    turn = threading.Lock()

    def killed(file):
        with turn:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
        return read(file)

    monkeypatch.setattr(module, "_content", killed)
    with pytest.raises(KeyboardInterrupt):
        small(images, tmp_path / "out", threads=threads)
    monkeypatch.setattr(module, "_content", read)
    there = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.tar")}
    answer = small(images, tmp_path / "out", threads=threads)
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert answer["kept"] == len(there) and all(file.stat().st_mtime_ns == time for file, time in there.items())
    assert not list((tmp_path / "out").glob(".shard-*"))
    assert small(images, tmp_path / "out")["kept"] == answer["shards"]  # nothing left to do


def test_what_a_kill_leaves_is_gone_over_again(images, tmp_path):
    """A half tar under its other name, a half line in the journal, a tar of which nobody wrote that it is finished."""
    small(images, tmp_path / "out")
    whole = content(tmp_path / "out")
    (tmp_path / "out" / ".shard-000001.tar.part").write_bytes(b"half")
    journal = tmp_path / "out" / ".conversion" / "done.jsonl"
    lines = [line for line in journal.read_text().splitlines() if line]
    journal.write_text("\n".join(line for line in lines if '"number": 1,' not in line) + '\n{"split": "", "num')
    answer = small(images, tmp_path / "out")
    assert answer["kept"] == answer["shards"] - 1 and content(tmp_path / "out") == whole
    assert not list((tmp_path / "out").glob(".shard-*"))
    assert small(images, tmp_path / "out")["kept"] == answer["shards"]


def test_finished_tars_are_verified(images, tmp_path):
    small(images, tmp_path / "out")
    whole, (first, second, third, *_) = content(tmp_path / "out"), sorted((tmp_path / "out").glob("*.tar"))
    os.utime(first, (1, 1))  # the same content: it stays
    second.write_bytes(second.read_bytes()[:-1] + b"x")
    third.unlink()
    answer = small(images, tmp_path / "out")
    assert answer["kept"] == answer["shards"] - 2 and content(tmp_path / "out") == whole
    assert first.stat().st_mtime == 1


def test_a_full_disk_is_one_line_that_says_what_stays(images, tmp_path, monkeypatch):
    member, left = module._member, [60]

    def full(name, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return member(name, data)

    monkeypatch.setattr(module, "_member", full)
    message = refused(images, tmp_path / "out", threads=1)
    there = len(content(tmp_path / "out"))
    planned = len(json.loads((tmp_path / "out" / ".conversion" / "plan.json").read_text())["tars"])
    assert f"the disk is full; {there} of {planned} shards are finished and stay; make room" in message and there
    assert not list((tmp_path / "out").glob(".shard-*"))
    monkeypatch.setattr(module, "_member", member)
    assert small(images, tmp_path / "out")["kept"] == there


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(images, tmp_path, monkeypatch):
    usage = module.shutil._ntuple_diskusage(10, 10, 5000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    assert "0.0 GB are free" in refused(images, tmp_path / "out")
    assert not content(tmp_path / "out")


def test_two_at_once_are_refused(images, tmp_path, monkeypatch):
    small(images, tmp_path / "out")
    with module._lock(tmp_path / "out"):
        assert "another process converts into it" in refused(images, tmp_path / "out")

    def none_there(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(module.fcntl, "flock", none_there)
    assert "no file locks there (No locks available)" in refused(images, tmp_path / "out")


def test_a_write_that_fails_names_out(images, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise OSError(errno.EIO, os.strerror(errno.EIO))  # as write() does, without a file's name

    monkeypatch.setattr(module, "write_json", failing)
    assert f"OUT={tmp_path / 'out'}: cannot go on there (Input/output error)" in refused(images, tmp_path / "out")


def test_a_folder_with_something_else_in_it_is_refused(images, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("words")
    assert "it holds something else" in refused(images, tmp_path / "mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    small(images, tmp_path / "out")
    assert "a conversion with size_mb=0.02" in refused(images, tmp_path / "out", size_mb=1)
    assert "a conversion with labels=auto" in refused(images, tmp_path / "out", labels="folders")
    (images / "dog" / "new.png").write_bytes(b"")
    assert "it holds shards of other images, or FOLDER has changed" in refused(images, tmp_path / "out")
    assert "lies in FOLDER" in refused(images, images / "out")
    assert "holds FOLDER" in refused(images, tmp_path)
    assert "no such folder" in refused(tmp_path / "nowhere", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    assert "no image found" in refused(tmp_path / "empty", tmp_path / "new")
    (tmp_path / "file").write_text("")
    assert "cannot write there" in refused(images, tmp_path / "file")
    assert "--labels='folders': " in refused(tmp_path / "out", tmp_path / "new", labels="folders")


def test_an_image_that_cannot_be_read_stops_it_with_its_name(images, tmp_path):
    small(images, tmp_path / "out")
    before = os.stat(images / "cat").st_mtime_ns
    (images / "cat" / "10.png").unlink()
    os.utime(images / "cat", ns=(before, before))  # listed, and then not there any more
    (tmp_path / "out" / "shard-000000.tar").unlink()
    message = refused(images, tmp_path / "out")
    assert "10.png: cannot be read (No such file or directory)" in message and "an empty file there" in message
    (images / "cat" / "10.png").write_bytes(b"")
    os.utime(images / "cat", ns=(before, before))
    small(images, tmp_path / "out")
    index_all(tmp_path / "out", workers=1, anew=True, progress=lambda *_: None)
    assert len(ImageShards(tmp_path / "out", "train")) + len(ImageShards(tmp_path / "out", "test")) == 61


def test_the_verb_needs_no_torch():
    code = "import sys, launcher.verbs.shards, methods.data.convert; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "False\n"


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine"
    file.write_bytes(b"mine")
    return file


@pytest.mark.parametrize("name", ["lock", "done.jsonl", "plan.json"])
def test_no_link_among_its_notes_is_followed(images, tmp_path, mine, name):
    small(images, tmp_path / "out")
    note = tmp_path / "out" / ".conversion" / name
    note.unlink()
    note.symlink_to(mine)
    assert f"{note}: it is not a plain file" in refused(images, tmp_path / "out")
    assert mine.read_bytes() == b"mine"


def test_no_link_in_the_place_of_what_is_written_is_followed(images, tmp_path, mine):
    folder = tmp_path / "out"
    small(images, folder)
    whole = content(folder)
    (folder / "shard-000001.tar").unlink()
    for name in (".shard-000001.tar.part", "shard-000001.tar", "classes.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(mine)
    small(images, folder)
    assert content(folder) == whole and not (folder / "shard-000001.tar").is_symlink()
    assert mine.read_bytes() == b"mine"


def test_a_link_in_the_place_of_its_folders_is_refused(images, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".conversion").symlink_to(elsewhere)
    assert ".conversion: it is not a plain folder" in refused(images, tmp_path / "out")
    (tmp_path / "splits").mkdir()
    (images / "cat").rename(tmp_path / "splits" / "train")
    (images / "dog").rename(tmp_path / "splits" / "val")
    (tmp_path / "two" / ".conversion").mkdir(parents=True, mode=0o700)
    (tmp_path / "two" / "val").symlink_to(elsewhere)
    assert "val: it is not a plain folder" in refused(tmp_path / "splits", tmp_path / "two")
    assert not list(elsewhere.iterdir())


def test_notes_that_others_can_write_are_not_believed(images, tmp_path):
    small(images, tmp_path / "out")
    notes = tmp_path / "out" / ".conversion"
    assert notes.stat().st_mode & 0o777 == 0o700
    notes.chmod(0o770)
    assert f"{notes}: others can write there" in refused(images, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_what_somebody_else_has_put_there_is_not_believed(images, tmp_path):
    folder = tmp_path / "out"
    small(images, folder)
    whole, file = content(folder), folder / "shard-000001.tar"
    status = file.stat()
    file.write_bytes(bytes(status.st_size))  # of the same size and time
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.chown(file, 65534, 65534)
    answer = small(images, folder)
    assert answer["kept"] == answer["shards"] - 1 and content(folder) == whole
    os.chown(folder / ".conversion", 65534, 65534)
    assert ".conversion: it belongs to user 65534, not to you" in refused(images, folder)


@pytest.mark.parametrize(
    "tars",
    [None, 5, [5], [["../up", 0, 0, 61, 1]], [["", 0, 0, 60, 1]], [["", "0", 0, 61, 1]], [["", 0, 0, 9, 1]] * 2],
)
def test_a_damaged_plan_is_one_line(images, tmp_path, tars):
    small(images, tmp_path / "out")
    file = tmp_path / "out" / ".conversion" / "plan.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tars": tars}))
    assert f"{file}: it is no plan of a conversion" in refused(images, tmp_path / "out")


@pytest.mark.parametrize("line", ["5", "[" * 100_000, '{"split": ""}', '{"split": [], "number": {}, "bytes": 1}'])
def test_a_damaged_journal_is_gone_over(images, tmp_path, line):
    small(images, tmp_path / "out")
    with (tmp_path / "out" / ".conversion" / "done.jsonl").open("a") as journal:
        journal.write(f"\n{line}\n")
    answer = small(images, tmp_path / "out")
    assert answer["kept"] == answer["shards"]


def test_others_may_read_the_shards_as_they_may_any_file_of_the_users(images, tmp_path):
    before = os.umask(0o022)
    try:
        small(images, tmp_path / "out")
        index_all(tmp_path / "out", workers=1, anew=True, progress=lambda *_: None)
    finally:
        os.umask(before)
    files = [file for file in (tmp_path / "out").iterdir() if file.is_file()]
    assert {file.name: oct(file.stat().st_mode & 0o777) for file in files} == {file.name: "0o644" for file in files}
