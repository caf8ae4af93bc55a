"""Tars that somebody else made: each image in them is used, or named among what is left out. Right values: what
WebDataset 1.0.2 reads of the same tars (`SAMPLES`), and what the standard library's tarfile unpacks."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

from launcher.errors import InputError
from launcher.verbs import shards
from methods.data import mapped, tars
from methods.data.dataset import BrokenImage
from methods.data.listing import is_image_name
from methods.data.sets.shards.spec import ShardsData
from methods.data.shard_index import index_all, open_shards
from methods.data.shards import ImageShards
from methods.data.spec import check


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def picture(number):
    """A PNG, of other bytes for each number."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 12, 3)).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def link(name, to, kind):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info, b""


def hard(name, to):
    return link(name, to, tarfile.LNKTYPE)


def soft(name, to):
    return link(name, to, tarfile.SYMTYPE)


def sparse(name, content):
    """With holes before and behind `content`, as GNU tar 1.34 --sparse writes it: a map in front of the data."""
    data = b"1\n512\n%d\n" % len(content)
    data += bytes(-len(data) % 512) + content
    info = tarfile.TarInfo(name)
    size = str(1024 + len(content))
    said = {"major": "1", "minor": "0", "name": name, "realsize": size}
    info.pax_headers = {f"GNU.sparse.{key}": value for key, value in said.items()}
    return info, data


def old_sparse(name, content):
    """The same in the header of GNU tar before 1.14."""
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.GNUTYPE_SPARSE, len(content)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"%011o\0%011o\0" % (512, len(content))
    header[483:495] = b"%011o\0" % (1024 + len(content))
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header), content


def write(file, members):
    """A tar of (name or TarInfo or whole header, content)s."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=tarfile.PAX_FORMAT) as archive:
        for what, content in members:
            if isinstance(what, bytes):
                archive.fileobj.write(what + content + bytes(-len(content) % 512))
                archive.offset += 512 + len(content) + -len(content) % 512
                continue
            info = tarfile.TarInfo(what) if isinstance(what, str) else what
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def pictures(*names):
    return [(name, picture(number)) for number, name in enumerate(names)]


def labels(*names):
    return [(name, b"%d" % (number % 2)) for number, name in enumerate(names)]


TARS = {
    "dots": pictures("IMG.2021.0.png", "IMG.2021.1.png", "IMG.2021.2.png", "img0.png", "img1.png"),
    "dots in folders": pictures("v1.0/a.png", "v1.0/b.c/d.png", "./v1.0/IMG.1.png", "./v1.0/IMG.2.png", "x./y..png"),
    "dots and labels": [
        *labels("a/I.0.cls", "a/I.1.cls"), *pictures("a/I.0.png", "a/I.1.png"), *labels("b.cls"), *pictures("b.c.png"),
    ],
    "two views and a label": [*pictures("x.left.png", "x.right.png"), *labels("x.cls", "y.cls"), *pictures("y.png")],
    "masks": [*pictures("x.png", "x.seg.png", "y.jpg", "y.png"), ("x.json", b"{}"), ("z.json", b"{}")],
    "hard links": [*pictures("a.png", "b.png"), hard("c.png", "a.png"), hard("d/e.png", "b.png")],
    "symbolic links": [
        soft("first.png", "d/a.png"), *pictures("d/a.png", "d/b.png"), soft("d/c.png", "./a.png"),
        soft("e/f.png", "../d/c.png"), soft("gone.png", "nowhere.png"), soft("out.png", "/etc/out.png"),
        soft("round.png", "round.png"), soft("d/link", "a.png"),
    ],
    "linked labels": [*pictures("a.png"), ("a.cls", b"1"), *pictures("b.png"), hard("b.cls", "a.cls")],
    "sparse": [*pictures("a.png"), sparse("b.png", picture(1)), *pictures("c.png")],
    "old sparse": [*pictures("a.png"), old_sparse("b.png", picture(1)), *pictures("c.png")],
    "labels first": [*labels("0.cls", "1.cls", "2.cls"), *pictures("0.png", "1.png", "2.png")],
    "labels last": [*pictures("0.png", "1.png", "2.png"), *labels("2.cls", "0.cls", "1.cls")],
    "hidden": [*pictures("a.png", "._a.png", "d/.b.png"), *pictures("__MACOSX/._a.png")],
    "no images": [("a.heic", b"?"), ("b.npy", b"?"), ("b.json", b"{}"), ("README", b"?")],
}  # fmt: skip

# (key, suffixes of its fields in their order, cls) of each sample.
SAMPLES = {
    "dots": [("IMG", "2021.0.png 2021.1.png 2021.2.png", None), ("img0", "png", None), ("img1", "png", None)],
    "dots in folders": [
        ("v1.0/a", "png", None), ("v1.0/b.c/d", "png", None), ("./v1.0/IMG", "1.png 2.png", None),
        ("x./y", ".png", None),
    ],
    "dots and labels": [("a/I", "0.cls 1.cls 0.png 1.png", None), ("b", "cls c.png", 0)],
    "two views and a label": [("x", "left.png right.png cls", 0), ("y", "cls png", 1)],
    "masks": [("x", "png seg.png", None), ("y", "jpg png", None), ("x", "json", None), ("z", "json", None)],
    "hard links": [("a", "png", None), ("b", "png", None)],
    "symbolic links": [("d/a", "png", None), ("d/b", "png", None)],
    "linked labels": [("a", "png cls", 1), ("b", "png", None)],
    "sparse": [("a", "png", None), ("b", "png", None), ("c", "png", None)],
    "old sparse": [("a", "png", None), ("b", "png", None), ("c", "png", None)],
    "labels first": [
        ("0", "cls", 0), ("1", "cls", 1), ("2", "cls", 0), ("0", "png", None), ("1", "png", None), ("2", "png", None),
    ],
    "labels last": [("0", "png", None), ("1", "png", None), ("2", "png cls", 0), ("0", "cls", 1), ("1", "cls", 0)],
    "hidden": [("a", "png", None), ("d/", "b.png", None), ("__MACOSX/", "_a.png", None)],
    "no images": [("a", "heic", None), ("b", "npy json", None)],
}  # fmt: skip
FURTHER = {"x.seg.png", "y.png"}  # of the samples x and y of "masks": the second images of each
LEFT = {
    "masks": {"further images of a sample": [2, "x.seg.png"], "samples without an image": [2, "x.json"]},
    "symbolic links": {"links to what this tar does not hold": [3, "gone.png"]},
    "hidden": {"hidden files": [3, "._a.png"]},
    "no images": {"samples without an image": [2, "a.heic"]},
}
LABELS = {
    "dots and labels": {"a/I.0.png": 0, "a/I.1.png": 1, "b.c.png": 0},
    "two views and a label": {"x.left.png": 0, "x.right.png": 0, "y.png": 1},
    "linked labels": {"a.png": 1, "b.png": 1},
    "labels first": {"0.png": 0, "1.png": 1, "2.png": 0},
    "labels last": {"0.png": 1, "1.png": 0, "2.png": 0},
}


def contents(folder, **options):
    """{name: bytes} of what is used."""
    dataset = ImageShards(folder, "train", **options)
    return {dataset.name_of(i).removeprefix("x.tar: "): dataset.read(i) for i in range(len(dataset))}


@pytest.mark.parametrize("case", TARS)
def test_what_is_used_is_what_tarfile_unpacks(tmp_path, case):
    write(tmp_path / "tars" / "x.tar", TARS[case])
    with tarfile.open(tmp_path / "tars" / "x.tar") as archive:
        archive.extractall(tmp_path / "files", filter="fully_trusted")
    files = [file for file in (tmp_path / "files").rglob("*") if is_image_name(file.name)]
    right = {str(f.relative_to(tmp_path / "files")): f.read_bytes() for f in files if not f.is_symlink() or f.exists()}
    used = contents(tmp_path / "tars", labels="none")
    further = FURTHER if case == "masks" else set()
    assert used == {name: content for name, content in right.items() if name not in further}
    (counts,) = open_shards(tmp_path / "tars").counts
    assert counts["used"] == len(used) and counts["left"] == LEFT.get(case, {})
    left = sum(many for why, (many, _) in counts["left"].items() if why != "samples without an image")
    assert counts["images"] == len(used) + left and counts["files"] == len(TARS[case])


@pytest.mark.parametrize("case", SAMPLES)
def test_what_webdataset_reads_is_used_or_named(tmp_path, case):
    write(tmp_path / "x.tar", TARS[case])
    read = [f"{key}.{suffix}".removeprefix("./") for key, suffixes, _ in SAMPLES[case] for suffix in suffixes.split()]
    used, left = contents(tmp_path, labels="none"), LEFT.get(case, {})
    missing = [name for name in read if is_image_name(name.rpartition("/")[2]) and name not in used]
    assert len(missing) == left.get("further images of a sample", [0])[0]


@pytest.mark.parametrize("case", LABELS)
def test_labels_are_found_wherever_they_lie(tmp_path, case):
    write(tmp_path / "x.tar", TARS[case])
    found = {}
    for split in ("train", "test"):
        dataset = ImageShards(tmp_path, split)
        found |= {dataset.name_of(i).removeprefix("x.tar: "): int(dataset.labels[i]) for i in range(len(dataset))}
    assert found == LABELS[case]
    # As WebDataset has them, where its samples have both.
    for key, suffixes, label in SAMPLES[case]:
        for suffix in suffixes.split():
            if label is not None and suffix.endswith("png"):
                assert found[f"{key}.{suffix}"] == label


def test_labels_that_contradict_each_other_are_none_and_said(tmp_path):
    """Two unsorted tars in one: nobody knows which label is that of which image."""
    members = [("0.cls", b"0"), ("1.cls", b"1"), *pictures("0.png"), ("2.png", picture(2))]
    write(tmp_path / "x.tar", [*members, ("0.cls", b"1"), ("9.cls", b"1"), *pictures("8.png")])
    dataset = ImageShards(tmp_path, "train")
    assert dataset.labels is None and len(dataset) == 4 - 1
    (counts,) = open_shards(tmp_path).counts
    assert counts["left"]["labels that contradict others"] == [1, "0.cls"]
    assert counts["left"]["labels of no image"] == [2, "1.cls"]


def test_a_run_says_what_is_left_out(tmp_path):
    write(tmp_path / "a.tar", TARS["masks"])
    write(tmp_path / "b.tar", [*TARS["masks"], *labels("l.cls"), *pictures("l.png")])
    (tmp_path / "notes.tar.gz").write_bytes(b"")
    said = ImageShards(tmp_path, "train").remarks
    assert said == [
        "of the tars: 14 files, 9 images, 5 of them used; left out: 4 further images of a sample, the first "
        "a.tar: x.seg.png, 4 samples without an image, the first a.tar: x.json",
        "1 of 5 images have a label, and none is used; data.labels=cls says what is the matter with the others",
        "notes.tar.gz is compressed, and no part of the data",
    ]
    write(tmp_path / "whole" / "a.tar", TARS["dots"])
    assert ImageShards(tmp_path / "whole", "train").remarks == []


def refused(folder, **options):
    with pytest.raises(InputError) as error:
        check(ShardsData(path=str(folder), **options))
    with pytest.raises(InputError) as again:
        index_all(folder, workers=1, anew=True, progress=lambda *_: None)
    assert str(again.value) == str(error.value) and "\n" not in str(error.value)
    return str(error.value)


PACK = {"gunzip": ("gz", gzip.compress), "bunzip2": ("bz2", bz2.compress), "unxz": ("xz", lzma.compress)}


@pytest.mark.parametrize("program", PACK)
def test_compressed_tars_are_refused_with_the_command_that_unpacks_them(tmp_path, program):
    suffix, pack = PACK[program]
    content = write(tmp_path / "x.tar", TARS["dots"]).read_bytes()
    for name, folder, files in (
        ("by name", "a b", {f"x.tar.{suffix}": pack(content)}),
        ("two", "c", {f"x-{n}.tar.{suffix}": pack(content) for n in range(2)}),
        ("one of two", "d", {"x-0.tar": content, f"x-1.tar.{suffix}": pack(content)}),
        ("in spite of its name", "e f", {"x.tar": pack(content)}),
    ):
        (tmp_path / folder).mkdir()
        for file, packed in files.items():
            (tmp_path / folder / file).write_bytes(packed)
        line = refused(tmp_path / folder)
        assert "compressed (" in line and "which allows no random access; `" in line, name
        subprocess.run(line.split("`")[1], shell=True, check=True)
        check(ShardsData(path=str(tmp_path / folder)))
        assert set(contents(tmp_path / folder)) >= {"IMG.2021.0.png"} or name in ("two", "one of two")
        assert sum(counts["used"] for counts in open_shards(tmp_path / folder).counts) == 5 * len(files)


def test_a_tar_beside_its_compressed_self_is_read(tmp_path):
    content = write(tmp_path / "x.tar", TARS["dots"]).read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(content))
    dataset = ImageShards(tmp_path, "train")
    assert len(dataset) == 5 and dataset.remarks == []


def test_an_index_of_the_old_format_is_left_to_the_runs_of_its_day(tmp_path):
    """Which go on reading it; a new one is made under another name."""
    write(tmp_path / "x.tar", TARS["dots"])
    (tmp_path / "shards.index").write_bytes(old := b"sslrun shards 1\n" + bytes(100))
    assert len(ImageShards(tmp_path, "train")) == 5 and (tmp_path / "shards.index").read_bytes() == old
    # Whatever lies under its own name.
    for content in (old, mapped_as(tmp_path, b"sslrun shards 1\n")):
        (tmp_path / tars.NAME).unlink()
        (tmp_path / tars.NAME).write_bytes(content)
        assert len(ImageShards(tmp_path, "train")) == 5


def mapped_as(folder, magic):
    header, arrays = mapped.load(folder / tars.NAME, tars.MAGIC)
    mapped.save(folder / "other", magic, {**header, "samples": [1]}, arrays)
    return (folder / "other").read_bytes()


def test_damaged_links_and_pieces_are_broken_images(tmp_path):
    """Cut anywhere, after it was indexed and before."""
    members = [*TARS["sparse"], *TARS["old sparse"], hard("l.png", "a.png"), soft("m.png", "c.png")]
    content = write(tmp_path / "x.tar", members).read_bytes()
    whole = contents(tmp_path)
    for number, size in enumerate(range(0, len(content) - 9000, 301)):
        after, before = tmp_path / f"a{number}", tmp_path / f"b{number}"
        for folder in (after, before):
            folder.mkdir()
            (folder / "x.tar").write_bytes(content[:size] if folder == before else content)
        open_shards(after)
        os.truncate(after / "x.tar", size)
        for folder in (after, before):
            dataset = ImageShards(folder, "train")
            for i in range(len(dataset)):
                try:
                    read = dataset.read(i)
                except BrokenImage:
                    continue
                assert read == whole[dataset.name_of(i).removeprefix("x.tar: ")]


def test_the_counts_are_on_the_screen(tmp_path, capsys):
    def said():
        options = Namespace(
            folder=str(tmp_path), out=None, size_mb=1000, labels="auto", splits="auto", workers=1, json=True
        )
        assert shards.run(options) == 0
        written = capsys.readouterr()
        return [line for line in written.err.splitlines() if not line.startswith("tars indexed")], written.out

    for name, case in (("a", "masks"), ("b", "dots")):
        write(tmp_path / f"{name}.tar", TARS[case])
    (tmp_path / "notes.tar.gz").write_bytes(b"")
    lines, answer = said()
    assert lines == [
        "a.tar: 6 files, 4 images, 2 of them used; left out: 2 further images of a sample, the first x.seg.png, "
        "2 samples without an image, the first x.json",
        "b.tar: 5 files, 5 images, 5 of them used",
        "notes.tar.gz: compressed, and no part of it",
        f"7 images in 2 shards: data=shards data.path={tmp_path}",
    ]
    assert json.loads(answer)["tars"] == [
        ["a.tar", {"files": 6, "images": 4, "used": 2, "labels": 0, "left": LEFT["masks"]}],
        ["b.tar", {"files": 5, "images": 5, "used": 5, "labels": 0, "left": {}}],
    ]
    for number in range(30):
        os.link(tmp_path / "b.tar", tmp_path / f"c{number}.tar")
    assert [line.split(":")[0] for line in said()[0]] == ["a.tar", "notes.tar.gz", "157 images in 32 shards"]
