"""Which index of a folder of tars is taken, and what is refused for want of one."""

import io
import os
import tarfile
import zlib

import numpy as np
import pytest

from launcher.errors import InputError
from methods.data import mapped, shard_index, tars
from methods.data.sets.shards.spec import ShardsData
from methods.data.shard_index import index_all, open_shards
from methods.data.shards import ImageShards
from methods.data.spec import check, no_labels


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def put(file, labels):
    """A tar of empty images with these labels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for number, label in enumerate(labels):
            for extension, content in (("cls", str(label).encode()), ("png", b"")):
                info = tarfile.TarInfo(f"{number}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_many_bytes_without_an_index_are_refused(tmp_path, monkeypatch):
    for split in ("train", "val"):
        put(tmp_path / "a b" / split / "x.tar", [0, 1])
    config = ShardsData(path=str(tmp_path / "a b"))
    monkeypatch.setattr(tars, "INDEXED_ALONE", 20_480)  # both together
    check(config)
    monkeypatch.setattr(tars, "INDEXED_ALONE", 20_479)
    with pytest.raises(InputError) as error:
        check(config)
    said = "no index yet, and 0 GB of tars would keep all ranks waiting"
    assert str(error.value) == f"data.path={config.path!r}: {said}; run `sslrun shards '{config.path}'` first"
    index_all(config.path, workers=1, anew=False, progress=lambda *_: None)
    check(config)


def test_a_damaged_index_leads_to_the_next(tmp_path, monkeypatch):
    put(tmp_path / "x.tar", [0, 1])
    open_shards(tmp_path)
    beside, cached = tars.index_files(tmp_path)
    content = beside.read_bytes()
    cached.parent.mkdir(parents=True)
    cached.write_bytes(content)
    beside.write_bytes(content[:-1] + b"\xff")
    assert mapped.head(beside, tars.MAGIC) and not mapped.load(beside, tars.MAGIC)
    monkeypatch.setattr("methods.data.shard_index.scan", None)
    assert len(open_shards(tmp_path)) == 2


@pytest.mark.parametrize("part", range(8))
def test_a_flipped_bit_of_its_header_is_no_index(tmp_path, part):
    """Every eighth bit of the header in each test."""
    put(tmp_path / "x.tar", [0, 1])
    open_shards(tmp_path)
    beside, config = tars.index_files(tmp_path)[0], ShardsData(path=str(tmp_path))
    content = beside.read_bytes()
    length = int.from_bytes(content[24:32], "little")
    for bit in range(part, (32 + length) * 8, 8):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        beside.write_bytes(flipped)
        known, problem = tars.fitting(tmp_path)
        assert problem is None and shard_index.existing(known) == (None, None)
        no_labels(config)


@pytest.mark.parametrize("header", ["[" * 100_000, "5", "{}", '{"arrays": {}}', '{"arrays": {"blob": 5}, "tars": []}'])
def test_an_index_that_nobody_of_us_wrote_is_none(tmp_path, header):
    put(tmp_path / "x.tar", [0, 1])
    beside = tars.index_files(tmp_path)[0]
    rest = len(header).to_bytes(8, "little") + header.encode()
    beside.write_bytes(tars.MAGIC + zlib.crc32(rest).to_bytes(8, "little") + rest)
    assert mapped.load(beside, tars.MAGIC) in (None, ({}, {})) and len(open_shards(tmp_path)) == 2


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_is_no_file_is_no_index(tmp_path, kind):
    put(tmp_path / "x.tar", [0, 1])
    beside, mine = tars.index_files(tmp_path)[0], tmp_path / "mine"
    mine.write_text("mine")
    {"pipe": os.mkfifo, "link": lambda file: file.symlink_to(mine), "folder": os.mkdir}[kind](beside)
    assert len(open_shards(tmp_path)) == 2 and mine.read_text() == "mine"


def test_the_index_of_no_sample_is_an_index(tmp_path, monkeypatch):
    put(tmp_path / "x.tar", [])
    assert len(open_shards(tmp_path)) == 0
    monkeypatch.setattr("methods.data.shard_index.scan", None)
    assert len(open_shards(tmp_path)) == 0


def test_ids_are_no_classes(tmp_path):
    put(tmp_path / "ids" / "x.tar", [5, 99_999, 7])
    dataset = ImageShards(tmp_path / "ids", "train")
    assert dataset.classes is None and dataset.labels is None and len(dataset) == 3
    with pytest.raises(InputError, match=r"^data\.labels='cls': label 99999 is there, and 3 samples: .*; name them"):
        ImageShards(tmp_path / "ids", "train", labels="cls")
    put(tmp_path / "few" / "x.tar", [2, 1, 0])
    few = ImageShards(tmp_path / "few", "train")
    assert few.classes == ("0", "1", "2") and np.all(few.labels < 3)
