import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launcher.errors import InputError
from methods.data import build, spec
from methods.data import index as index_module
from methods.data.dataset import BrokenImage
from methods.data.folder import ImageFolder
from methods.data.index import open_index
from methods.data.sets.base import DataSet
from methods.data.sets.image_folder.spec import ImageFolderData
from methods.data.sets.photos.spec import PhotosData
from methods.data.spec import DATA, check


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "sslrun"


@pytest.fixture
def walks(monkeypatch):
    """The roots that were walked, not read from the cache."""
    roots, walk = [], index_module._walk
    monkeypatch.setattr(index_module, "_walk", lambda root: roots.append(root) or walk(root))
    return roots


def put(file, colour=(200, 30, 30), mode="RGB", **options):
    os.makedirs(os.path.dirname(os.fspath(file)), exist_ok=True)
    image = Image.new("RGB", (8, 6), colour)
    (image.quantize(4) if mode == "P" else image.convert(mode)).save(file, **options)
    return file


def fill(root, classes=("cat", "dog"), images=30):
    for name in classes:
        for number in range(images):
            put(root / name / f"{number}.png")
    return root


def names(dataset):
    return [dataset.name_of(i) for i in range(len(dataset))]


def test_the_words_of_an_image_lie_beside_it(tmp_path):
    for stem in ("a/one.two", "a/ünï", "b/silent", "b/latin"):
        put(tmp_path / f"{stem}.png")
    (tmp_path / "a" / "one.two.txt").write_text("a cat\nein Kätzchen\n", encoding="utf-8")
    (tmp_path / "a" / "ünï.txt").write_text("図", encoding="utf-8")
    (tmp_path / "b" / "latin.txt").write_bytes(b"\xe9")
    dataset = ImageFolder(tmp_path, "train", labels="none")
    assert len(dataset) == 4, "a text was taken for an image"
    at = {name: index for index, name in enumerate(names(dataset))}
    assert dataset.text(at["a/one.two.png"]) == "a cat\nein Kätzchen\n" and dataset.text(at["a/ünï.png"]) == "図"
    with pytest.raises(BrokenImage, match=r"^b/silent\.png: no text beside it \(No such file or directory\)$"):
        dataset.text(at["b/silent.png"])
    with pytest.raises(BrokenImage, match=r"^b/latin\.png: no text beside it \(UnicodeDecodeError: "):
        dataset.text(at["b/latin.png"])


# Splits and labels


def test_labelled_folders_give_a_fixed_tenth_to_the_test_split(tmp_path):
    fill(tmp_path, images=300)
    train, test = ImageFolder(tmp_path, "train"), ImageFolder(tmp_path, "test")
    assert not set(names(train)) & set(names(test)) and len(train) + len(test) == 600
    assert 35 < len(test) < 85
    assert train.classes == test.classes == ("cat", "dog")
    for split in (train, test):
        assert split.labels.dtype == np.int64
        assert [split.classes[label] for label in split.labels] == [name.split("/")[0] for name in names(split)]
    put(tmp_path / "cat" / "new.png")
    assert set(names(test)) <= set(names(ImageFolder(tmp_path, "test"))), "a new image moved an old one"


def test_the_smallest_labelled_folder_has_both_splits(tmp_path):
    fill(tmp_path, images=1)
    assert len(ImageFolder(tmp_path, "train")) == len(ImageFolder(tmp_path, "test")) == 1


def test_without_labels_all_images_train_and_none_test(tmp_path):
    fill(tmp_path, images=20)
    for options in ({"labels": "none"}, {}):
        put(tmp_path / "top.png")  # for auto: an image outside the classes means that there are none
        train, test = ImageFolder(tmp_path, "train", **options), ImageFolder(tmp_path, "test", **options)
        assert (len(train), len(test)) == (41, 0) and train.labels is None and train.classes is None


def test_auto_needs_two_classes_but_folders_takes_one(tmp_path):
    fill(tmp_path, classes=("only",))
    assert ImageFolder(tmp_path, "train").classes is None
    assert ImageFolder(tmp_path, "train", labels="folders").classes == ("only",)


@pytest.mark.parametrize("second", ["val", "test"])
def test_the_folders_own_splits_are_used(tmp_path, second):
    fill(tmp_path / "train", ("cat", "dog", "eel"), 3)
    fill(tmp_path / second, ("cat", "eel"), 2)
    train, test = ImageFolder(tmp_path, "train"), ImageFolder(tmp_path, "test")
    assert (len(train), len(test)) == (9, 4) and names(test)[0] == f"{second}/cat/0.png"
    assert test.classes == train.classes and test.labels.tolist() == [0, 0, 2, 2]
    put(tmp_path / second / "yak" / "0.png")
    with pytest.raises(InputError, match="images of 'yak', which is no class of the training split"):
        ImageFolder(tmp_path, "test")


def test_a_flat_test_split_has_no_labels(tmp_path):
    fill(tmp_path / "train")
    put(tmp_path / "val" / "0.png")
    assert ImageFolder(tmp_path, "test").labels is None and ImageFolder(tmp_path, "train").labels is not None


# Names, links, formats


def test_odd_names_are_found_in_sorted_order_and_named_on_one_line(tmp_path):
    odd = [b"caf\xc3\xa9/a b.JPG", b"q'u\"o/new\nline.PNG", b"\xff\xfe/\xe9.jpeg", b"deep/er/and/deeper.Tiff"]
    for name in odd:
        put(os.path.join(os.fsencode(tmp_path), name))
    for ignored in (b"._mac.jpg", b"notes.txt", b".hidden/x.png", b"jpg"):
        os.makedirs(os.path.dirname(os.path.join(os.fsencode(tmp_path), ignored)), exist_ok=True)
        with open(os.path.join(os.fsencode(tmp_path), ignored), "wb") as file:
            file.write(b"no image")
    for _ in ("walked", "from the cache"):
        train, test = ImageFolder(tmp_path, "train"), ImageFolder(tmp_path, "test")
        found = names(train) + names(test)
        assert all(name.isprintable() for name in found)
        assert sorted(found) == sorted([
            "café/a b.JPG", "q'u\"o/new\\nline.PNG", "\\xff\\xfe/\\xe9.jpeg", "deep/er/and/deeper.Tiff",
        ])  # fmt: skip
        classes = list(map(os.fsencode, train.classes))
        assert len(classes) == 4 and classes == sorted(classes)
        assert {train.image(i).mode for i in range(len(train))} == {"RGB"}


# Broken images


def test_broken_images_say_which_and_why(tmp_path):
    whole = put(tmp_path / "whole.jpg", quality=95).read_bytes()
    broken = {
        "empty.jpg": b"", "text.png": b"this is no image", "short.jpg": whole[: len(whole) // 2],
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\n",
        "junk.bmp": Image.new("1", (1, 1)).tobytes(), "wide.ppm": b"P6 60000 60000 255\n",
    }  # fmt: skip
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    put(tmp_path / "vanished.png")
    dataset = ImageFolder(tmp_path, "train")
    (tmp_path / "vanished.png").unlink()
    reasons = {}
    for i in range(len(dataset)):
        try:
            assert dataset.image(i).mode == "RGB"
        except BrokenImage as error:
            assert error.name == dataset.name_of(i) and str(error) == f"{error.name}: {error.reason}"
            reasons[error.name] = error.reason
    assert set(reasons) == set(broken) | {"vanished.png"}
    assert reasons["vanished.png"] == "No such file or directory"
    assert reasons["postscript.jpg"] == reasons["text.png"] == reasons["empty.jpg"]
    assert reasons["text.png"].startswith("not an image of a known format (JPEG, ")
    limit = "60000 x 60000 pixels are more than data.max_pixels=178956970 allows; raise it"
    assert reasons["wide.ppm"] == limit and "runcated" in reasons["short.jpg"]


# The cached index


def test_the_index_is_walked_once_and_again_when_the_folder_changed(tmp_path, walks, cache):
    fill(tmp_path, images=3)
    first = open_index(tmp_path)
    second = open_index(tmp_path)
    assert len(walks) == 1 and [first.path(i) for i in range(6)] == [second.path(i) for i in range(6)]
    assert first.folders == second.folders and np.array_equal(first.digits, second.digits)
    assert len(list(cache.iterdir())) == 1
    for change in (
        lambda: put(tmp_path / "cat" / "new.png"),
        lambda: (tmp_path / "dog" / "0.png").unlink(),
        lambda: put(tmp_path / "eel" / "0.png"),
        lambda: os.rename(tmp_path / "dog", tmp_path / "wolf"),
    ):
        before = len(walks)
        for folder in (tmp_path, tmp_path / "cat", tmp_path / "dog"):
            os.utime(folder, (1, 1))  # two changes within one tick of the clock have one time
        open_index(tmp_path)
        change()
        index = open_index(tmp_path)
        assert len(walks) == before + 2
        expected = sorted(os.fsencode(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.png"))
        assert sorted(index.path(i) for i in range(len(index))) == expected


def test_a_corrupted_index_is_rebuilt(tmp_path, walks, cache):
    fill(tmp_path, images=3)
    expected = names(ImageFolder(tmp_path, "train"))
    (file,) = cache.iterdir()
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[-3] ^= 1
    damaged = (b"", b"x", content[:30], content[:-1], content + b"x", bytes(flipped), b"\0" * 500)
    for number, damage in enumerate(damaged):
        file.unlink()  # what is mapped keeps its file, as it does when a rename replaces it
        file.write_bytes(damage)
        assert names(ImageFolder(tmp_path, "train")) == expected
        assert len(walks) == number + 2 and file.read_bytes() == content


def test_a_cache_that_cannot_be_written_is_no_cache(tmp_path, walks, monkeypatch):
    fill(tmp_path / "images", images=3)
    (tmp_path / "file").write_text("not a folder")
    for _ in range(2):
        assert len(open_index(tmp_path / "images", tmp_path / "file" / "cache")) == 6
    assert len(walks) == 2


@pytest.mark.parametrize("given", [None, "", "relative"])
def test_where_nobody_has_a_home_there_is_no_cache_and_no_folder_called_tilde(tmp_path, walks, monkeypatch, given):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME")
    if given is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", given)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    put(tmp_path / "images" / "a.png")
    assert len(open_index(tmp_path / "images")) == len(open_index(tmp_path / "images")) == 1
    assert len(walks) == 2 and not os.listdir()


def test_an_interrupted_write_leaves_the_old_index(tmp_path, walks, cache, monkeypatch):
    fill(tmp_path, images=3)
    open_index(tmp_path)
    os.utime(tmp_path / "cat", (1, 1))
    monkeypatch.setattr(index_module.os, "replace", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    assert len(open_index(tmp_path)) == 6
    assert len(list(cache.iterdir())) == 1, "a temporary file was left behind"


# The check before a job is queued


def refused(config, field="data"):
    with pytest.raises(InputError) as error:
        check(config, field)
    message = str(error.value)
    assert message.startswith(f"{field}.") and "\n" not in message and "; " in message
    return message


def test_check_refuses_what_cannot_be_a_folder_of_images(tmp_path):
    assert "give a folder of images: eval_data.path=" in refused(ImageFolderData(), "eval_data")
    assert "does not exist" in refused(ImageFolderData(path=str(tmp_path / "gone")))
    (tmp_path / "file.png").write_text("")
    assert "is not a folder" in refused(ImageFolderData(path=str(tmp_path / "file.png")))
    (tmp_path / "empty" / "sub").mkdir(parents=True)
    (tmp_path / "empty" / "sub" / "notes.txt").write_text("")
    assert "no image found; give a folder with .jpg" in refused(ImageFolderData(path=str(tmp_path / "empty")))
    put(tmp_path / "empty" / "sub" / "up" / "x.PNG")
    check(ImageFolderData(path=str(tmp_path / "empty")))
    assert "choose one of auto, folders, none" in refused(ImageFolderData(path=str(tmp_path), labels="yes"))
    assert "a share of the images" in refused(PhotosData(max_broken=2))


def test_check_looks_into_both_splits(tmp_path):
    fill(tmp_path / "train", images=1)
    (tmp_path / "val").mkdir()
    assert "no image found in its val/" in refused(ImageFolderData(path=str(tmp_path)))


def test_labels_that_are_asked_for_and_not_there_are_refused(tmp_path):
    put(tmp_path / "top.png")
    config = ImageFolderData(path=str(tmp_path), labels="folders")
    assert "'top.png' lies directly in" in refused(config)
    with pytest.raises(InputError, match=r"'top.png' lies directly in .*set data\.labels=none"):
        ImageFolder(tmp_path, "train", labels="folders")
    with pytest.raises(ValueError, match="split='valid': unknown; choose train or test"):
        build(config, "valid")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_check_names_the_folder_that_cannot_be_read(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0)
    assert "is not readable by you; chmod u+rx" in refused(ImageFolderData(path=str(closed)))
    assert "cannot list" in refused(ImageFolderData(path=str(tmp_path)))


def test_the_spec_needs_neither_torch_nor_numpy_nor_pil():
    code = "import sys, methods.data.spec; print({'torch', 'numpy', 'PIL'} & set(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.strip() == "set()"
    assert [DATA[name]().name for name in DATA] == list(DATA)


def test_every_data_set_in_a_folder_is_known_by_its_name():
    files = sorted(Path(spec.__file__).parent.glob("sets/*/spec.py"))
    modules = [import_module(f"methods.data.sets.{file.parent.name}.spec") for file in files]
    kinds = [
        kind
        for module in modules
        for kind in vars(module).values()
        if getattr(kind, "__module__", "") == module.__name__
    ]
    written = [kind.name for kind in kinds if isinstance(kind, type) and issubclass(kind, DataSet)]
    assert written == list(DATA)
    assert {"photos", "image_folder", "cifar10", "shards", "voc", "made/objects"} <= {*DATA}
