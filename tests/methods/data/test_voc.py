"""Files to the letter of PASCAL VOC's layout, and what of it is refused."""

import errno
import os

import numpy as np
import pytest
from away import install
from PIL import Image

from launcher.compose.training import resolve
from launcher.errors import InputError, Unreadable
from launcher.run import waiting
from launcher.spec.runspec import freeze
from methods.data import build
from methods.data.dataset import BrokenImage
from methods.data.sets.voc.reader import Voc
from methods.data.sets.voc.spec import CLASSES as VOC_CLASSES
from methods.data.sets.voc.spec import VocData
from methods.data.spec import check, check_columns

PARTS = {2007: {"trainval": ["000005", "000007", "000009"], "test": ["000001", "000002"]}}
PARTS[2012] = {"train": ["2008_000008"], "val": ["2008_000002", "2008_000003"], "trainval": ["2008_000002"]}


@pytest.fixture(params=[2007])
def year(request):
    return request.param


@pytest.fixture
def voc(tmp_path, year):
    """A folder as the archives of a year unpack: every image shows the class of its place, and no other but for what
    `say` writes."""
    folder = tmp_path / "VOCdevkit" / f"VOC{year}"
    for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / name).mkdir(parents=True)
    for part, ids in PARTS[year].items():
        for number, name in enumerate(VOC_CLASSES):
            say(folder, name, part, {each: 1 if place == number else -1 for place, each in enumerate(ids)})
        for place, each in enumerate(ids):
            Image.new("RGB", (9 + place, 7), (200, 30, 30)).save(folder / "JPEGImages" / f"{each}.jpg")
    return folder


def say(folder, name, part, values):
    """As published: the id, a blank, and the value in two places."""
    lines = [f"{each} {value:2d}\n" for each, value in values.items()]
    (folder / "ImageSets" / "Main" / f"{name}_{part}.txt").write_text("".join(lines))


def test_tags_are_what_the_lists_say_and_0_where_all_there_is_is_difficult(voc, tmp_path):
    say(voc, "cat", "trainval", {"000005": 1, "000007": 0, "000009": -1})
    config = VocData(path=str(tmp_path))
    check(config)
    train, test = build(config, "train"), build(config, "test")
    wanted = np.full((3, 20), -1)
    wanted[[0, 1, 2], [0, 1, 2]] = 1
    wanted[:2, VOC_CLASSES.index("cat")] = 1, 0
    assert train.tags.dtype == np.int8 and train.tags.tolist() == wanted.tolist()
    assert test.tags.shape == (2, 20) and test.tags[1, 1] == 1 and test.tags.sum() == 2 - 38
    assert train.labels is None and train.channels == 3 and train.classes == VOC_CLASSES
    assert train.image(2).size == (11, 7) and train.image(0).mode == "RGB"
    assert test.name_of(0) == "VOC2007/JPEGImages/000001.jpg"
    for index in (-1, 3):
        with pytest.raises(IndexError):
            train.image(index)


@pytest.mark.parametrize("year", [2012], indirect=True)
def test_of_2012_train_is_trained_on_and_val_judges(voc, tmp_path):
    config = VocData(path=str(tmp_path), year=2012)
    check(config)
    assert [len(build(config, split)) for split in ("train", "test")] == [1, 2]
    assert build(config, "test").name_of(1) == "VOC2012/JPEGImages/2008_000003.jpg"


def test_the_folder_itself_and_those_around_it_are_found(voc, tmp_path):
    for path in (voc, voc.parent, tmp_path):
        check(VocData(path=str(path)))
        assert len(Voc(path, "train")) == 3


def test_the_lists_may_have_their_lines_in_any_order(voc):
    say(voc, "bird", "trainval", {"000009": 1, "000005": -1, "000007": -1})
    assert Voc(voc, "train").tags[2, 2] == 1


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda f: (f / "ImageSets/Main/tvmonitor_test.txt").unlink(), "ImageSets/Main/tvmonitor_test.txt' is missing"),
        (lambda f: (f / "JPEGImages/000005.jpg").unlink(), "VOC2007/JPEGImages/000005.jpg' is missing"),
        (lambda f: (f / "ImageSets").rename(f / "Sets"), "VOCdevkit/VOC2007/ImageSets/Main/aeroplane_trainval.txt' is"),
        (lambda f: f.rename(f.with_name("VOC2012")), "VOCdevkit/VOC2007/ImageSets/Main/aeroplane_trainval.txt' is"),
    ],
)
def test_a_folder_that_is_not_as_the_data_set_lays_it_is_refused_with_the_file_looked_for(voc, tmp_path, spoil, said):
    spoil(voc)
    with pytest.raises(InputError) as error:
        check(VocData(path=str(tmp_path)), "eval_data")
    line = str(error.value)
    assert line.startswith(f"eval_data.path={str(tmp_path)!r}: ") and said in line and "\n" not in line
    assert "unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar into one folder" in line
    check(VocData(path=str(tmp_path)), at_hand=False)


@pytest.mark.parametrize(
    "text, said",
    [
        ("000005  1\n000007\n000009 -1\n", "cat_trainval.txt: line 2, '000007', is not `ID VALUE`"),
        ("000005  1\n000007 2\n000009 -1\n", "line 2, '000007 2', is not `ID VALUE`, VALUE 1, -1 or 0"),
        ("000005  1\n000007 -1 x\n000009 -1\n", "line 2"),
        ("000005  1\n../../x 1\n000009 -1\n", "line 2, '../../x 1', is not `ID VALUE`"),
        ("000005  1\n000005 -1\n000007 -1\n", "line 2 tells of 000005 a second time"),
        (
            "000005  1\n000007 -1\n",
            "cat_trainval.txt and ImageSets/Main/aeroplane_trainval.txt are of other images: 00",
        ),
        ("", "cat_trainval.txt: it tells of no image"),
        ("000005  1\n00000\u00e9  1\n", "cat_trainval.txt: it is not plain text"),
    ],
)
def test_a_list_that_says_something_else_is_one_clear_error(voc, tmp_path, text, said):
    (voc / "ImageSets/Main/cat_trainval.txt").write_text(text)
    with pytest.raises(InputError) as error:
        _ = Voc(tmp_path, "train").tags
    assert said in str(error.value) and str(error.value).startswith("data.path: ") and "\n" not in str(error.value)


def test_a_pipe_in_place_of_a_list_or_an_image_is_not_waited_for(voc, tmp_path):
    image, listed = voc / "JPEGImages/000007.jpg", voc / "ImageSets/Main/cat_test.txt"
    for file in (image, listed):
        file.unlink()
        os.mkfifo(file)
    with pytest.raises(BrokenImage, match="000007"):
        Voc(tmp_path, "train").image(1)
    with pytest.raises(InputError, match=r"cat_test\.txt' is missing"):
        check(VocData(path=str(tmp_path)))
    with pytest.raises(InputError, match=r"cat_test\.txt' cannot be read"):
        _ = Voc(tmp_path, "test").tags
    listed.unlink()
    listed.symlink_to(voc / "ImageSets/Main/dog_test.txt")
    image.unlink()
    image.symlink_to(voc / "JPEGImages/000005.jpg")
    assert Voc(tmp_path, "train").image(1).size == (9, 7) and Voc(tmp_path, "test").tags[0, 7] == -1


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_list_that_cannot_be_read_now_is_waited_for_and_no_wrong_input(number, voc, monkeypatch):
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.0)
    away, lists = install(monkeypatch, number), voc / "ImageSets" / "Main"
    away(lists, times=1)
    with pytest.raises(OSError, match=r"aeroplane_trainval\.txt"):  # whoever builds it waits
        Voc(voc, "train")
    dataset = Voc(voc, "train")
    away(lists / "cat_trainval.txt", times=2)
    assert dataset.tags.sum() == 3 - 57
    monkeypatch.setattr(waiting, "SECONDS", 0.0)
    away(lists)
    del dataset.tags
    with pytest.raises(Unreadable, match=r"aeroplane_trainval\.txt cannot be read on "):
        _ = dataset.tags


def test_a_list_that_may_not_be_read_is_told_at_once(voc, monkeypatch):
    install(monkeypatch, errno.EACCES)(voc / "ImageSets" / "Main")
    with pytest.raises(InputError, match=r"^data\.path: .*aeroplane_trainval\.txt' cannot be read.*make it readable$"):
        Voc(voc, "train")


def test_a_damaged_image_is_a_broken_one_and_so_is_a_missing_one(voc):
    (voc / "JPEGImages/000007.jpg").write_bytes(b"no JPEG")
    (voc / "JPEGImages/000009.jpg").unlink()
    for index in (1, 2):
        with pytest.raises(BrokenImage, match=rf"^VOC2007/JPEGImages/00000{(0, 7, 9)[index]}.jpg: "):
            Voc(voc, "train").image(index)


def test_what_needs_a_label_an_image_is_refused_when_it_is_composed(voc, tmp_path):
    config = VocData(path=str(tmp_path))
    assert config.truth == freeze(config).truth and "label" not in config.truth and build(config, "test").labels is None
    for at_hand in (True, False):
        with pytest.raises(InputError, match=r"^data=voc: it has no labels \(it has several labels an image"):
            check_columns(config, ("label",), at_hand=at_hand)
    check_columns(config, ("position",))


def test_a_year_that_is_not_read_is_refused_and_one_that_is_comes_through_composing(voc, tmp_path):
    words = ["method=rotnet", "recipe=tiny", "data=voc", f"data.path={tmp_path}"]
    spec, _ = resolve(words)
    assert (spec.data.name, spec.data.year, spec.data.path) == ("voc", 2007, str(tmp_path))
    with pytest.raises(InputError, match=r"^data.year=2010: no such year is read; give 2007 or 2012$"):
        resolve([*words, "data.year=2010"], planning=True)
    with pytest.raises(InputError, match=r"^eval_data.path=null: .* give the folder with VOCdevkit/"):
        resolve([*words, "eval_data=voc"])
