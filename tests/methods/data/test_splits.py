"""Held-out images are never trained on by the accident of a folder's name."""

import os

import pytest
from PIL import Image

from launcher.errors import InputError
from methods.data.convert import convert
from methods.data.folder import ImageFolder
from methods.data.sets.image_folder.spec import ImageFolderData
from methods.data.sets.shards.spec import ShardsData
from methods.data.spec import check
from methods.data.splits import hidden_splits, pair


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def fill(root, *folders, images=3):
    """`images` pictures of each class cat and dog in each folder."""
    for folder in folders:
        for number in range(images):
            for name in ("cat", "dog"):
                (root / folder / name).mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 6)).save(root / folder / name / f"{number}.png")
    return root


def names(dataset):
    return {dataset.name_of(i) for i in range(len(dataset))}


def refused(root, **options):
    with pytest.raises(InputError) as refusal:
        check(ImageFolderData(path=str(root), **options))
    assert refusal.value.exit_code == 2 and "\n" not in str(refusal.value)
    return str(refusal.value)


@pytest.mark.parametrize("held", ["val", "valid", "validation", "test"])
def test_the_usual_names_of_held_out_images_are_known(tmp_path, held):
    fill(tmp_path, "train", held)
    check(ImageFolderData(path=str(tmp_path)))
    train, test = ImageFolder(tmp_path, "train"), ImageFolder(tmp_path, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert {name.split("/")[0] for name in names(train)} == {"train"} and len(train) == 6
    assert {name.split("/")[0] for name in names(test)} == {held} and len(test) == 6


def test_of_several_the_validation_images_judge(tmp_path):
    fill(tmp_path, "train", "test", "valid")
    assert {name.split("/")[0] for name in names(ImageFolder(tmp_path, "test"))} == {"valid"}


def test_train_alone_keeps_its_labels_and_holds_a_tenth_out(tmp_path):
    fill(tmp_path, "train", images=100)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "README.txt").write_text("no image")
    train, test = ImageFolder(tmp_path, "train"), ImageFolder(tmp_path, "test")
    assert train.classes == test.classes == ("cat", "dog")
    assert len(train) + len(test) == 200 and 8 < len(test) < 40 and not names(train) & names(test)
    assert all(name.startswith("train/") for name in names(train) | names(test))
    # The same images are held out as where the folder itself is given.
    inner = ImageFolder(tmp_path / "train", "test")
    assert {f"train/{name}" for name in names(inner)} == names(test)


def test_a_train_among_other_vehicles_is_a_class(tmp_path):
    fill(tmp_path, "train", "bus", "bicycle")
    check(ImageFolderData(path=str(tmp_path)))
    assert ImageFolder(tmp_path, "train").classes == ("bicycle", "bus", "train")


@pytest.mark.parametrize("pair", [
    ("Train", "Val"), ("training", "testing"), ("train2017", "val2017"), ("train_images", "test_images"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"), ("trainset", "testset"), ("TrainImages", "TestImages"),
    ("trainA", "testA"), ("train_large_places365", "val_256"), ("train", "unlabeled"), ("train", "val-2"),
    ("test", "valid"),
])  # fmt: skip
def test_what_looks_like_splits_and_is_not_taken_for_them_is_refused(tmp_path, pair):
    fill(tmp_path, *pair)
    (tmp_path / "labels").mkdir()
    line = refused(tmp_path)
    assert line.startswith(f"data.path='{tmp_path}': ") and all(repr(name) in line for name in pair)
    assert line.endswith("or say data.splits=none where these are classes")
    check(ImageFolderData(path=str(tmp_path), splits="none"))
    assert ImageFolder(tmp_path, "train", splits="none").classes == tuple(sorted(pair))


def test_splits_none_makes_classes_even_of_train_and_val(tmp_path):
    fill(tmp_path, "train", "val")
    assert ImageFolder(tmp_path, "train", splits="none").classes == ("train", "val")
    assert "choose one of auto, none" in refused(tmp_path, splits="no")


def test_a_folder_above_the_splits_is_refused_with_the_one_that_holds_them(tmp_path):
    root = fill(tmp_path, "ILSVRC/Data/CLS-LOC/train", "ILSVRC/Data/CLS-LOC/val")
    inside = root / "ILSVRC" / "Data" / "CLS-LOC"
    (root / "ILSVRC" / "Annotations").mkdir()
    line = refused(root)
    assert "in its ILSVRC/Data/CLS-LOC/ look like splits" in line and f"; give {inside}, or say" in line
    check(ImageFolderData(path=str(inside)))


def test_splits_below_each_class_are_refused(tmp_path):
    """As MVTec AD's are: bottle/train/good, bottle/test/broken."""
    fill(tmp_path, "bottle/train", "bottle/test", "cable/train", "cable/test")
    assert "in its bottle/ look like splits" in refused(tmp_path)


@pytest.mark.parametrize("classes", [
    ("bullet_train", "test_tube", "wok"), ("valley", "train_station", "lake"), ("trainer", "tester"),
    ("strain", "contest"), ("car", "dog"), ("training_shoe", "sandal"), ("0", "1", "2"),
])  # fmt: skip
def test_classes_with_such_words_in_their_names_stay_classes(tmp_path, classes):
    fill(tmp_path, *classes)
    check(ImageFolderData(path=str(tmp_path)))
    assert ImageFolder(tmp_path, "train").classes == tuple(sorted(classes))


def test_folders_without_images_are_no_splits(tmp_path):
    fill(tmp_path, "cat", "dog")
    (tmp_path / "train2017").mkdir()
    (tmp_path / "val2017").mkdir()
    check(ImageFolderData(path=str(tmp_path)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path):
    fill(tmp_path, "train")
    (tmp_path / "other").mkdir(mode=0o000)
    assert "cannot list" in refused(tmp_path)


def test_splits_are_looked_for_in_a_few_folders_only(tmp_path, monkeypatch):
    looked, real = [], hidden_splits.__globals__["_sub_folders"]
    monkeypatch.setitem(hidden_splits.__globals__, "_sub_folders", lambda *given: looked.append(given) or real(*given))
    for number in range(150):
        (tmp_path / f"{number:03d}").mkdir()
    assert hidden_splits(str(tmp_path)) is None and len(looked) == 100


def test_tars_of_two_splits_in_one_folder_are_refused(tmp_path):
    for name in ("imagenet1k-train-0000.tar", "imagenet1k-train-0001.tar", "imagenet1k-validation-00.tar"):
        (tmp_path / name).write_bytes(bytes(10240))
    with pytest.raises(InputError, match=r"'imagenet1k-train-0000\.tar' and 'imagenet1k-validation-00\.tar' look like"):
        check(ShardsData(path=str(tmp_path)))
    check(ShardsData(path=str(tmp_path), splits="none"))


def test_conversion_has_the_splits_of_the_folder(tmp_path):
    root = fill(tmp_path / "known", "train", "validation")
    assert convert(root, tmp_path / "out")["classes"] == 2
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == [
        ".conversion", "train", "validation",
    ]  # fmt: skip
    fill(tmp_path / "unknown", "train2017", "val2017")
    with pytest.raises(InputError, match=r"^FOLDER=.*look like splits.*or say --splits none where these are classes$"):
        convert(tmp_path / "unknown", tmp_path / "other")
    assert convert(tmp_path / "unknown", tmp_path / "other", splits="none")["classes"] == 2


def test_a_pair_differs_in_the_split_alone():
    assert pair(["b_train_2", "a_val_1"]) is None
    assert pair(["x-val", "x-train", "y-test"]) == ("x-train", "x-val")
