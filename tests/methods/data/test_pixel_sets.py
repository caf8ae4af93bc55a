"""Data sets that know the class of each pixel: files to the letter of their layouts, and what is refused."""

import os

import numpy as np
import pytest
from PIL import Image

from launcher.errors import InputError
from methods.data import build
from methods.data.dataset import BrokenImage
from methods.data.sets.cityscapes.spec import CityscapesData
from methods.data.sets.made_objects.reader import MadeObjects
from methods.data.sets.voc_segmentation.spec import VocSegmentationData
from methods.data.spec import check

IDS = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
CITIES = {"train": ["aachen/aachen_000000_000019", "bremen/bremen_000000_000019"], "val": ["ulm/ulm_000001_000019"]}


def palette(file, numbers):
    """A PNG of a palette, as VOC's masks are."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.array(numbers, np.uint8), "P")
    image.putpalette([value for number in range(256) for value in (number, 0, 255 - number)])
    image.save(file)


def grey(file, numbers):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(numbers, np.uint8)).save(file)


@pytest.fixture
def voc(tmp_path):
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("JPEGImages", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    for part, ids in IDS.items():
        (folder / f"ImageSets/Segmentation/{part}.txt").write_text("".join(f"{each}\n" for each in ids))
        for each in ids:
            Image.new("RGB", (3, 2), (200, 30, 30)).save(folder / "JPEGImages" / f"{each}.jpg")
            palette(folder / "SegmentationClass" / f"{each}.png", [[0, 1, 255], [20, 0, 7]])
    return folder


@pytest.fixture
def cityscapes(tmp_path):
    folder = tmp_path / "cityscapes"
    for part, names in CITIES.items():
        for name in names:
            colours = folder / "leftImg8bit" / part / f"{name}_leftImg8bit.png"
            grey(colours, np.zeros((2, 3, 3)))
            grey(folder / "gtFine" / part / f"{name}_gtFine_labelIds.png", [[0, 7, 33], [26, 4, 8]])
            (folder / "gtFine" / part / f"{name}_gtFine_polygons.json").write_text("{}")
    return folder


def test_of_voc_s_masks_the_places_in_the_palette_are_the_classes(voc, tmp_path):
    config = VocSegmentationData(path=str(tmp_path))
    check(config)
    train, test = build(config, "train"), build(config, "test")
    assert (len(train), len(test)) == (2, 1) and len(train.classes) == 20 and train.labels is None
    assert train.pixels(1).dtype == np.uint8 and train.pixels(1).tolist() == [[0, 1, 255], [20, 0, 7]]
    assert train.image(0).size == (3, 2) and train.name_of(1) == "VOC2012/JPEGImages/2007_000039.jpg"
    for path in (voc, voc.parent):
        check(VocSegmentationData(path=str(path)))


def test_trainaug_takes_the_masks_beside_voc_s_where_voc_has_none(voc, tmp_path):
    config = VocSegmentationData(path=str(tmp_path), learn="trainaug")
    with pytest.raises(InputError, match=r"trainaug.txt' is missing; lay the masks of SBD beside VOC's"):
        check(config, "eval_data")
    (voc / "ImageSets/Segmentation/trainaug.txt").write_text("2007_000032\n2008_000002\n")
    Image.new("RGB", (3, 2)).save(voc / "JPEGImages" / "2008_000002.jpg")
    for each in ("2007_000032", "2008_000002"):
        grey(voc / "SegmentationClassAug" / f"{each}.png", [[3, 3, 3], [3, 3, 0]])
    check(config)
    train = build(config, "train")
    assert train.pixels(0).max() == 255 and train.pixels(1).tolist() == [[3, 3, 3], [3, 3, 0]]
    assert len(build(config, "test")) == 1


def test_of_cityscapes_34_ids_19_are_classes_and_all_others_void(cityscapes):
    config = CityscapesData(path=str(cityscapes))
    check(config)
    train, test = build(config, "train"), build(config, "test")
    assert (len(train), len(test)) == (2, 1) and len(train.classes) == 19 and not train.background
    assert train.pixels(0).tolist() == [[255, 1, 19], [14, 255, 2]]
    assert [train.classes[place] for place in (0, 18, 13, 1)] == ["road", "bicycle", "car", "sidewalk"]
    assert train.name_of(1) == "leftImg8bit/train/bremen/bremen_000000_000019_leftImg8bit.png"
    assert train.image(0).size == (3, 2)


def test_cityscapes_classes_are_those_of_torchvision_s_table():
    from torchvision.datasets import Cityscapes

    from methods.data.sets.cityscapes.reader import CLASSES, KNOWN

    theirs = [each for each in Cityscapes.classes if each.id >= 0]
    assert {each.id: each.train_id + 1 if each.train_id < 255 else 255 for each in theirs} == KNOWN
    assert {each.id: each.name for each in theirs if not each.ignore_in_eval} == CLASSES


@pytest.mark.parametrize(
    "spoil, said",
    [
        (
            lambda f: (f / "ImageSets/Segmentation/val.txt").unlink(),
            "VOC2012/ImageSets/Segmentation/val.txt' is missing",
        ),
        (lambda f: (f / "JPEGImages/2007_000032.jpg").unlink(), "VOC2012/JPEGImages/2007_000032.jpg' is missing"),
        (lambda f: (f / "SegmentationClass/2007_000033.png").unlink(), "SegmentationClass/2007_000033.png' is missing"),
    ],
)
def test_a_folder_that_voc_does_not_lay_is_refused_with_the_file_looked_for(voc, tmp_path, spoil, said):
    spoil(voc)
    with pytest.raises(InputError) as error:
        check(VocSegmentationData(path=str(tmp_path)), "eval_data")
    line = str(error.value)
    assert line.startswith(f"eval_data.path={str(tmp_path)!r}: ") and said in line and "\n" not in line
    assert "unpack VOCtrainval_11-May-2012.tar, which makes VOCdevkit/VOC2012/" in line
    check(VocSegmentationData(path=str(tmp_path)), at_hand=False)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda f: (f / "leftImg8bit").rename(f / "images"), "leftImg8bit/train' is missing"),
        (lambda f: (f / "gtFine").rename(f / "gtCoarse"), "aachen_000000_000019_gtFine_labelIds.png' is missing"),
        (
            lambda f: (f / f"leftImg8bit/val/{CITIES['val'][0]}_leftImg8bit.png").unlink(),
            "leftImg8bit/val' has no CITY/NAME_leftImg8bit.png",
        ),
    ],
)
def test_a_folder_that_cityscapes_does_not_lay_is_refused_with_the_file_looked_for(cityscapes, spoil, said):
    spoil(cityscapes)
    with pytest.raises(InputError) as error:
        check(CityscapesData(path=str(cityscapes)), "eval_data")
    line = str(error.value)
    assert line.startswith(f"eval_data.path={str(cityscapes)!r}: ") and said in line and "\n" not in line
    assert "unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip" in line


@pytest.mark.parametrize(
    "text, said",
    [
        ("2007_000032\n../../x\n", "line 2, '../../x', is not an ID"),
        ("2007_000032 1\n", "line 1, '2007_000032 1', is not an ID"),
        ("2007_000032\n2007_000032\n", "names an image twice"),
        ("\n", "names no image"),
    ],
)
def test_a_list_that_is_none_is_refused_in_a_line(voc, tmp_path, text, said):
    (voc / "ImageSets/Segmentation/train.txt").write_text(text)
    with pytest.raises(InputError, match=said) as error:
        build(VocSegmentationData(path=str(tmp_path)), "train")
    assert "ImageSets/Segmentation/train.txt" in str(error.value)


def test_a_mask_that_is_none_breaks_its_image(voc, tmp_path):
    train = build(VocSegmentationData(path=str(tmp_path)), "train")
    file = voc / "SegmentationClass/2007_000032.png"
    palette(file, [[0, 21, 0]])
    with pytest.raises(
        BrokenImage, match=r"VOC2012/SegmentationClass/2007_000032.png: .*a pixel is 21, which is no cl"
    ):
        train.pixels(0)
    Image.new("RGB", (3, 2)).save(file)
    with pytest.raises(BrokenImage, match="not one number of 8 bits a pixel"):
        train.pixels(0)
    file.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(BrokenImage):
        train.pixels(0)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(BrokenImage, match="not a plain file"):
        train.pixels(0)


def test_made_objects_have_their_class_where_they_are_and_are_void_where_they_are_difficult():
    made = MadeObjects("train", images=76)
    seen = set()
    for index in range(76):
        pixels, mask, labels = made.pixels(index), made.mask(index), made.box_labels(index)
        difficult = made.difficult(index)
        for number in range(len(labels) + 1):
            wanted = 0 if number == 0 else 255 if difficult[number - 1] else labels[number - 1] + 1
            assert set(pixels[mask == number].tolist()) == {int(wanted)}
            seen.add(int(wanted))
    assert seen == {*range(7), 255} and pixels.dtype == np.uint8
