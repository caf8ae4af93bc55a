"""Boxes of PASCAL VOC from files to the letter of Annotations/, and VOC07+12."""

from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import VOCDetection

from launcher.compose.training import resolve
from launcher.errors import InputError
from methods.data import build
from methods.data.sets.voc.boxes import boxes_of
from methods.data.sets.voc.reader import Voc
from methods.data.sets.voc.spec import CLASSES, VocData
from methods.data.spec import check

OBJECT = """<object><name>{}</name><pose>Left</pose><truncated>1</truncated><difficult>{}</difficult>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>{}</object>"""
PART = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
TWO = OBJECT.format("dog", 0, 1, 2, 8, 7, "") + OBJECT.format("person", 1, 3.5, 1, 9, 5, PART)


def annotation(objects):
    return f"<annotation><folder>VOC2007</folder><size><width>9</width></size>{objects}</annotation>"


@pytest.fixture
def devkit(tmp_path):
    """VOCdevkit/ with both years; every image has the objects TWO."""
    parts = {2007: {"trainval": ["000005", "000007"], "test": ["000001"]}, 2012: {"trainval": ["2008_000008"]}}
    for year, lists in parts.items():
        folder = tmp_path / "VOCdevkit" / f"VOC{year}"
        for name in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (folder / name).mkdir(parents=True)
        for part, ids in lists.items():
            for name in CLASSES:
                value = 1 if name == "dog" else 0 if name == "person" else -1
                text = "".join(f"{each} {value:2d}\n" for each in ids)
                (folder / "ImageSets" / "Main" / f"{name}_{part}.txt").write_text(text)
            for each in ids:
                Image.new("RGB", (9, 7), (200, 30, 30)).save(folder / "JPEGImages" / f"{each}.jpg")
                (folder / "Annotations" / f"{each}.xml").write_text(annotation(TWO))
    return tmp_path / "VOCdevkit"


def test_boxes_are_those_that_torchvision_reads_counted_from_the_border(devkit):
    dataset = Voc(devkit, "train")
    theirs = VOCDetection.parse_voc_xml(ElementTree.fromstring(annotation(TWO)))["annotation"]["object"]
    sides = [[float(each["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for each in theirs]
    assert dataset.boxes(0).dtype == np.float32
    assert dataset.boxes(0).tolist() == [[a - 1, b - 1, c, d] for a, b, c, d in sides]
    assert [CLASSES[label] for label in dataset.box_labels(0)] == [each["name"] for each in theirs]
    assert dataset.box_labels(1).dtype == np.int64 and dataset.difficult(1).tolist() == [False, True]
    with pytest.raises(IndexError):
        dataset.boxes(2)


def test_an_image_without_objects_has_no_boxes():
    boxes, labels, difficult = boxes_of(annotation("").encode())
    assert boxes.shape == (0, 4) and labels.shape == difficult.shape == (0,)


def test_trainval_of_2012_comes_behind_that_of_2007_and_judges_nothing(devkit):
    for path in (devkit, devkit.parent, devkit / "VOC2007"):
        config = VocData(path=str(path), plus_2012=True)
        check(config)
        train, test = build(config, "train"), build(config, "test")
        assert [train.name_of(i) for i in range(len(train))] == [
            "VOC2007/JPEGImages/000005.jpg", "VOC2007/JPEGImages/000007.jpg", "VOC2012/JPEGImages/2008_000008.jpg",
        ]  # fmt: skip
        assert train.tags.shape == (3, 20) and (train.tags[2] == train.tags[0]).all() and len(test) == 1
        assert train.boxes(2).tolist() == train.boxes(0).tolist() and train.image(2).size == (9, 7)


def test_it_is_another_data_set_only_where_it_is_asked_for(devkit):
    words = ["method=rotnet", "recipe=tiny", "data=voc", f"data.path={devkit}"]
    before, after = (resolve([*words, *more])[0].science["data"] for more in ([], ["data.plus_2012=true"]))
    assert "plus_2012" not in before and after == {**before, "plus_2012": True}


def test_what_cannot_be_added_is_refused(devkit):
    with pytest.raises(InputError, match=r"^eval_data\.plus_2012=true: year=2012 is what it would add; give year=2007"):
        check(VocData(path=str(devkit), year=2012, plus_2012=True), "eval_data")
    (devkit / "VOC2012").rename(devkit / "VOC2013")
    said = r"VOC2012/ImageSets/Main/aeroplane_trainval\.txt' is missing; unpack VOCtrainval_11-May-2012\.tar"
    with pytest.raises(InputError, match=said):
        check(VocData(path=str(devkit), plus_2012=True))


@pytest.mark.parametrize(
    "text, said",
    [
        ("<annotation><object>", "it is no XML"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "/etc/passwd">]><annotation/>', "it has a declaration"),
        ('\ufeff<!DOCTYPE a [<!ENTITY b "bb">]><annotation/>'.encode("utf-16-le"), "it has a declaration"),
        (annotation(OBJECT.format("unicorn", 0, 1, 1, 2, 2, "")), "'unicorn' is none of the classes"),
        (annotation(OBJECT.format("dog", 0, "x", 1, 2, 2, "")), "bndbox/xmin is 'x', no number of pixels"),
        (annotation(OBJECT.format("dog", 0, 1, "nan", 2, 2, "")), "bndbox/ymin is 'nan', no number of pixels"),
        (annotation(OBJECT.format("dog", 0, 1, 1, 2, 1e9, "")), "bndbox/ymax is '1000000000.0', no number"),
        (annotation(OBJECT.format("dog", 0, 5, 1, 2, 2, "")), "the dog ends before it begins"),
        (annotation("<object><name>dog</name></object>"), "bndbox/xmin is '', no number of pixels"),
    ],
)
def test_a_file_that_tells_no_boxes_is_one_clear_error(devkit, text, said):
    (devkit / "VOC2007/Annotations/000007.xml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        Voc(devkit, "train").boxes(1)
    assert f"Annotations/000007.xml: {said}" in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_of_boxes_is_said_with_the_layout_and_a_huge_one_is_not_read(devkit):
    file = devkit / "VOC2007/Annotations/000005.xml"
    file.write_text(annotation(" " * (1 << 20)))
    with pytest.raises(InputError, match=r"000005\.xml' cannot be read \(.*more than the 1,048,576"):
        Voc(devkit, "train").boxes(0)
    file.unlink()
    with pytest.raises(InputError, match=r"000005\.xml' is missing; unpack .*Annotations/ID\.xml"):
        Voc(devkit, "train").boxes(0)
