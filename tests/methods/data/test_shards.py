"""Tars as a data set: what is in them, whoever made them, and what becomes of damage."""

import gc
import io
import json
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from launcher.errors import InputError
from methods.data import build, mapped, tars
from methods.data.dataset import BrokenImage
from methods.data.sets.shards.spec import ShardsData
from methods.data.shard_index import index_all, open_shards
from methods.data.shard_names import escaped, original
from methods.data.shards import OPEN, ImageShards
from methods.data.spec import check, no_labels


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "sslrun"


def picture(number, kind="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (number % 256, number // 256, 7)).save(stream, kind)
    return stream.getvalue()


def put(file, members, layout=tarfile.GNU_FORMAT, **options):
    """A tar of (name, content)s."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=layout, **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file


def samples(numbers, classes=None):
    """Members of samples without labels, or with number % classes."""
    for number in numbers:
        if classes:
            yield f"{number:05d}.cls", str(number % classes).encode()
        yield f"{number:05d}.png", picture(number)


def numbers(dataset):
    """Those of the images that can be read; broken ones are left out."""
    found = []
    for i in range(len(dataset)):
        try:
            red, green, _ = dataset.image(i).getpixel((0, 0))
        except BrokenImage:
            continue
        found.append(red + 256 * green)
    return found


def broken(dataset):
    reasons = {}
    for i in range(len(dataset)):
        try:
            dataset.image(i)
        except BrokenImage as error:
            assert error.name == dataset.name_of(i)
            reasons[error.name] = error.reason
    return reasons


# What is in a tar


def test_samples_come_in_the_order_of_the_tars_names(tmp_path):
    for name, first in (("b.tar", 10), ("a.tar", 0), ("c.tar", 20)):
        put(tmp_path / name, samples(range(first, first + 10)))
    dataset = ImageShards(tmp_path, "train")
    assert numbers(dataset) == list(range(30)) and dataset.classes is None and dataset.labels is None
    assert dataset.name_of(10) == "b.tar: 00010.png" and dataset.channels == 3
    assert len(ImageShards(tmp_path, "test")) == 0
    shuffled = np.random.default_rng(0).permutation(30)
    assert [dataset.image(int(i)).getpixel((0, 0))[0] for i in shuffled] == shuffled.tolist()


def test_a_tar_appended_to_a_tar_and_an_empty_one(tmp_path):
    first, second = (put(tmp_path / "parts" / f"{n}.tar", samples(range(3 * n, 3 * n + 3))) for n in (0, 1))
    (tmp_path / "both.tar").write_bytes(first.read_bytes() + second.read_bytes())
    put(tmp_path / "empty.tar", [])
    assert numbers(ImageShards(tmp_path, "train")) == list(range(6)) and not open_shards(tmp_path).damaged


# Splits and labels


def test_labels_are_cheap_integers_with_names(tmp_path):
    put(tmp_path / "x.tar", samples(range(300), classes=3))
    (tmp_path / "classes.json").write_text('["cat", "dog", "eel"]')
    train, test = (build(ShardsData(path=str(tmp_path)), split) for split in ("train", "test"))
    assert train.classes == test.classes == ("cat", "dog", "eel") and train.labels.dtype == np.int64
    assert sorted(numbers(train) + numbers(test)) == list(range(300)) and 15 < len(test) < 45
    for split in (train, test):
        assert split.labels.tolist() == [number % 3 for number in numbers(split)]
    whole = build(ShardsData(path=str(tmp_path), labels="none"), "train")
    assert len(whole) == 300 and whole.labels is None


def test_train_and_val_folders_are_the_splits(tmp_path):
    put(tmp_path / "train" / "x.tar", samples(range(6), classes=2))
    put(tmp_path / "val" / "x.tar", samples(range(6, 9), classes=2))
    train, test = ImageShards(tmp_path, "train"), ImageShards(tmp_path, "test")
    assert numbers(train) == list(range(6)) and numbers(test) == [6, 7, 8] and test.labels.tolist() == [0, 1, 0]
    assert test.name_of(0) == "val/x.tar: 00006.png"


def refused(path, **options):
    with pytest.raises(InputError) as error:
        config = ShardsData(path=str(path), **options)
        check(config)
        build(config, "train"), build(config, "test")
    message = str(error.value)
    assert message.startswith("data.") and "\n" not in message and "; " in message
    return message


def test_labels_that_are_asked_for_and_not_there_are_refused(tmp_path):
    put(tmp_path / "x.tar", [*samples(range(4), classes=2), *samples([7]), ("00008.cls", b"cat"), *samples([8])])
    assert "2 of 6 samples have no KEY.cls with an integer, 00007.png among them" in refused(tmp_path, labels="cls")
    assert ImageShards(tmp_path, "train").labels is None  # auto
    assert "not every image has a .cls" in no_labels(ShardsData(path=str(tmp_path)))
    assert "choose one of auto, cls, none" in refused(tmp_path, labels="folders")
    put(tmp_path / "y" / "x.tar", samples(range(4), classes=4))
    (tmp_path / "y" / "classes.json").write_text('["cat"]')
    assert "label 3 is there, and classes.json names 1 classes" in refused(tmp_path / "y")
    (tmp_path / "y" / "classes.json").write_text("{")
    assert "mend it, or take it away" in refused(tmp_path / "y")


# Damage


def test_a_tar_cut_short_before_it_was_indexed(tmp_path):
    put(tmp_path / "good.tar", samples(range(5)))
    file = put(tmp_path / "short.tar", samples(range(5, 10)))
    content = file.read_bytes()
    file.write_bytes(content[: 7 * 512 + 40])  # the fourth image's header is there, and a part of it
    dataset = ImageShards(tmp_path, "train")
    assert numbers(dataset) == [0, 1, 2, 3, 4, 5, 6, 7]
    reasons = broken(dataset)
    assert set(reasons) == {"short.tar: 00008.png", "short.tar: byte 3624"}
    assert "cut short" in reasons["short.tar: 00008.png"] and "damaged here" in reasons["short.tar: byte 3624"]
    assert open_shards(tmp_path).damaged == [["short.tar", "damaged at byte 3624"]]


def test_a_tar_cut_short_after_it_was_indexed(tmp_path):
    file = put(tmp_path / "x.tar", samples(range(10)))
    put(tmp_path / "y.tar", samples(range(10, 12)))
    open_shards(tmp_path)
    os.truncate(file, 6 * 512 + 40)
    dataset = ImageShards(tmp_path, "train")
    assert len(dataset) == 12 and numbers(dataset) == [0, 1, 2, 10, 11]
    assert set(broken(dataset)) == {f"x.tar: {n:05d}.png" for n in range(3, 10)}
    assert all("cut short" in reason for reason in broken(dataset).values())


def test_damage_in_the_middle_costs_what_it_hit(tmp_path):
    file = put(tmp_path / "x.tar", samples(range(10), classes=2))
    content = bytearray(file.read_bytes())
    image = content.index(picture(3))
    content[image : image + 20] = b"no image at all here"
    header = content.index(b"00006.cls")
    content[header : header + 512] = os.urandom(512)
    file.write_bytes(content)
    train, test = ImageShards(tmp_path, "train"), ImageShards(tmp_path, "test")
    reasons = broken(train) | broken(test)
    assert sorted(numbers(train) + numbers(test)) == [0, 1, 2, 4, 5, 7, 8, 9]
    assert "not an image of a known format" in reasons.pop("x.tar: 00003.png")
    assert "its label is lost" in reasons.pop("x.tar: 00006.png")
    assert list(reasons) == [f"x.tar: byte {header}"] and len(train.labels) == len(train)
    # Damage after indexing: the header in front of an image is looked at on every read.
    content[content.index(b"00008.png")] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(0, open_shards(tmp_path).tars[0][2]))
    again = broken(ImageShards(tmp_path, "train")) | broken(ImageShards(tmp_path, "test"))
    assert "has changed since its index was made" in again["x.tar: 00008.png"]


@pytest.mark.parametrize("content", [b"", b"x", b"no tar" * 400, bytes(range(256)) * 40])
def test_a_file_that_is_no_tar_is_named_and_the_others_are_used(tmp_path, content):
    put(tmp_path / "good.tar", samples(range(5)))
    (tmp_path / "odd.tar").write_bytes(content)
    dataset = ImageShards(tmp_path, "train")
    assert numbers(dataset) == list(range(5)) and [name.split(":")[0] for name in broken(dataset)] == ["odd.tar"]
    assert open_shards(tmp_path).damaged[0][0] == "odd.tar"


def test_cut_or_damaged_anywhere_it_is_indexed_and_the_rest_is_right(tmp_path):
    members = [*samples(range(3), classes=2), ("long/" * 30 + "x.png", picture(7)), *samples([9], classes=2)]
    for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        content = put(tmp_path / "whole.tar", members, layout).read_bytes()
        (tmp_path / "whole.tar").unlink()
        assert len(content) > 15_000
        cut = [(content[:n], 0) for n in range(1, len(content) - 10_000, 211)]
        hit = [(content[:n] + b"\xff" * 30 + content[n + 30 :], 3) for n in range(0, len(content) - 9_000, 97)]
        for number, (damage, at_least) in enumerate(cut + hit):
            folder = tmp_path / f"{layout}-{number}"
            folder.mkdir()
            (folder / "x.tar").write_bytes(damage)
            dataset = ImageShards(folder, "train", labels="none")
            found = numbers(dataset)
            assert set(found) <= {0, 1, 2, 7, 9} and at_least <= len(found) == len(set(found))
            # A long name has no checksum: a damaged one may be that of no image.
            assert {0, 1, 2, 9} <= set(found) or broken(dataset)


# The index


def test_the_index_is_made_once_and_lies_beside_the_tars(tmp_path, monkeypatch, cache):
    put(tmp_path / "x.tar", samples(range(4)))
    open_shards(tmp_path)
    assert (tmp_path / tars.NAME).exists() and not cache.exists()
    monkeypatch.setattr("methods.data.shard_index.scan", None)
    assert numbers(ImageShards(tmp_path, "train")) == list(range(4))


def test_a_folder_that_cannot_be_written_has_its_index_in_the_cache(tmp_path, monkeypatch, cache):
    put(tmp_path / "x.tar", samples(range(4)))
    save = mapped.save

    def saved(file, *rest):
        if file.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        save(file, *rest)

    monkeypatch.setattr(mapped, "save", saved)
    open_shards(tmp_path)
    assert len(list(cache.iterdir())) == 1 and not (tmp_path / tars.NAME).exists()
    monkeypatch.setattr("methods.data.shard_index.scan", None)
    assert len(open_shards(tmp_path)) == 4


def test_a_damaged_index_is_made_anew(tmp_path):
    put(tmp_path / "x.tar", samples(range(4)))
    open_shards(tmp_path)
    file = tmp_path / tars.NAME
    content = file.read_bytes()
    for damage in (b"", content[:40], content[:-1], content[:-5] + b"\1" + content[-4:], b"\0" * 200):
        file.unlink()
        file.write_bytes(damage)
        assert numbers(ImageShards(tmp_path, "train")) == list(range(4)) and file.read_bytes() == content


CHANGES = {
    "'y.tar' is gone": lambda folder: (folder / "y.tar").unlink(),
    "'z.tar' is not in its index": lambda folder: put(folder / "z.tar", samples(range(3))),
    "'x.tar' is not the file that its index was made of": lambda folder: put(folder / "x.tar", samples(range(30, 90))),
    "'y.tar' is not the file": lambda folder: (folder / "y.tar").write_bytes((folder / "x.tar").read_bytes()),
    "'x.tar' is not the": lambda folder: put(folder / "x.tar", samples([5])),  # shorter, but none of what was there
}


@pytest.mark.parametrize(("says", "change"), CHANGES.items(), ids=CHANGES.keys())
def test_an_index_that_is_not_of_its_tars_is_refused_until_it_is_made_anew(tmp_path, says, change):
    for name, first in (("x.tar", 0), ("y.tar", 10)):
        put(tmp_path / name, samples(range(first, first + 10)))
    open_shards(tmp_path)
    check(ShardsData(path=str(tmp_path)))
    change(tmp_path)
    message = refused(tmp_path)
    assert says in message and f"`sslrun shards {tmp_path}` makes an index of what is there now" in message
    with pytest.raises(InputError, match=says):
        open_shards(tmp_path)
    index_all(tmp_path, workers=1, anew=True, progress=lambda *_: None)
    check(ShardsData(path=str(tmp_path)))
    assert not broken(ImageShards(tmp_path, "train"))


def test_a_copy_of_a_folder_takes_its_index_along(tmp_path, monkeypatch):
    """Whatever becomes of the files' times."""
    put(tmp_path / "x.tar", samples(range(10)))
    open_shards(tmp_path)
    os.utime(tmp_path / "x.tar", (1, 1))
    monkeypatch.setattr("methods.data.shard_index.scan", None)
    assert numbers(ImageShards(tmp_path, "train")) == list(range(10))


def test_several_processes_make_the_index_that_one_makes(tmp_path, monkeypatch):
    monkeypatch.setattr("methods.data.shard_index.WORTH_A_PROCESS", 1)
    for name in "abc":
        put(tmp_path / f"{name}.tar", samples(range(5), classes=2))
    (tmp_path / "b.tar").write_bytes(b"odd")
    told = []
    found = index_all(tmp_path, workers=2, anew=True, progress=lambda *word: told.append(word))
    content = (tmp_path / tars.NAME).read_bytes()
    assert index_all(tmp_path, workers=1, anew=True, progress=lambda *_: None) == found
    assert (tmp_path / tars.NAME).read_bytes() == content and told[-1] == ("tars indexed", 3, 3)
    assert found["images"] == 11 and found["damaged"] == [["b.tar", "damaged at byte 0"]]


def test_no_more_tars_stay_open_than_a_process_may_have(tmp_path):
    for number in range(OPEN + 20):
        put(tmp_path / f"{number:04d}.tar", samples([number]))
    dataset, before = ImageShards(tmp_path, "train"), len(os.listdir("/proc/self/fd"))
    assert numbers(dataset) == list(range(OPEN + 20)) == numbers(dataset)
    assert len(os.listdir("/proc/self/fd")) <= before + OPEN
    del dataset
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


MEASURE = """
import sys
from methods.data.shards import ImageShards
def resident():
    with open("/proc/self/smaps_rollup") as file:
        fields = dict(line.split()[:2] for line in file if line[0] in "RPA" and ":" in line)
    return int(fields["Rss:"]) * 1024, int(fields["Anonymous:"]) * 1024
ImageShards(sys.argv[1], "train").image(0)
before = resident()
dataset = ImageShards(sys.argv[2], "train")
for i in range(0, len(dataset), 500):
    dataset.image(i), dataset.name_of(i)
print(len(dataset), *(now - then for now, then in zip(resident(), before)))
"""


def test_the_index_of_forty_thousand_images_takes_under_64_bytes_each(tmp_path):
    put(tmp_path / "small" / "x.tar", samples(range(10)))
    first = put(
        tmp_path / "large" / "0000.tar", ((f"n01440764/n01440764_{n:05d}.png", picture(n)) for n in range(1000))
    )
    for number in range(1, 40):
        os.link(first, first.with_name(f"{number:04d}.tar"))
    open_shards(tmp_path / "large")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", MEASURE, tmp_path / "small", tmp_path / "large"]
    images, resident, own = map(int, subprocess.check_output(command, env=environment, text=True).split())
    assert images == 40_000
    assert resident < 64 * images  # with what is mapped, and shared by the processes of a node
    assert own < 8 * images


# Names


def test_keys_hold_no_dot_and_give_back_the_path():
    paths = [b"a/b.jpg", b"a/b.c.jpg", b"a.d/b%2E.c.JPEG", b"%.png", b"x/\xff\n.tif", b"a/%jpg.jpg"]
    for path in paths:
        for twin in (False, True):
            key, extension = escaped(path, twin)
            assert b"." not in key.rpartition(b"/")[2] and original(key, extension) == path
    assert len({escaped(path, twin) for path in paths for twin in (False, True)}) == 2 * len(paths)


def test_the_header_can_be_read_without_numpy(tmp_path):
    put(tmp_path / "x.tar", samples(range(3)))
    open_shards(tmp_path)
    code = f"""
import sys
from methods.data.sets.shards.spec import ShardsData
from methods.data.spec import check
check(ShardsData(path={str(tmp_path)!r}))
print(bool({{'torch', 'numpy', 'PIL'}} & set(sys.modules)))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True) == "False\n"
    assert json.loads(json.dumps(tars.fitting(tmp_path)[0][0][1]))["labelled"] is False
