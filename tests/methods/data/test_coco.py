"""Files to the letter of COCO's layout, read as pycocotools and torchvision read them, and what of it is refused."""

import contextlib
import copy
import io
import json

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CocoDetection

from launcher.compose.training import resolve
from launcher.errors import InputError
from methods.data import build
from methods.data.dataset import BrokenImage
from methods.data.sets.coco.spec import CocoData
from methods.data.spec import check

HEIGHT, WIDTH = 40, 60


def runs_of(mask):
    """As the data set writes crowds: columns one after the other, background first."""
    flat = mask.T.ravel()
    ends = [*np.flatnonzero(np.diff(flat)) + 1, len(flat)]
    return ([0] if flat[0] else []) + np.diff([0, *ends]).tolist()


def crowd():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:20, 10:30] = mask[25:30, 40:50] = True
    return mask


def annotation(number, image, category, box, shape, iscrowd=0):
    found = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": 1.0, "iscrowd": iscrowd}
    return {**found, "segmentation": shape}


SAID = {
    "info": {"year": 2017},
    "licenses": [],
    "images": [
        {"id": number, "file_name": f"{number:012}.jpg", "height": HEIGHT, "width": WIDTH} for number in (9, 1, 7)
    ],
    "categories": [
        {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
        {"id": 1, "name": "person"}, {"id": 3, "name": "car"},
    ],
    "annotations": [
        annotation(11, 9, 90, [5.25, 4.5, 20.5, 10.25], [[5.25, 4.5, 25.75, 6.1, 20.3, 14.75, 8.0, 12.2]]),
        annotation(12, 1, 1, [10, 3, 40, 27], {"counts": runs_of(crowd()), "size": [HEIGHT, WIDTH]}, 1),
        annotation(13, 9, 3, [0, 0, 60, 40], [[0, 0, 30, 0, 30, 20, 0, 20], [40, 25, 60, 25, 60, 40, 40, 40]]),
        annotation(14, 9, 90, [2, 2, 0, 3], [[2, 2, 2, 5, 2, 3]]),
        annotation(15, 1, 3, [1.5, 1.5, 9, 9], [[1.5, 1.5, 10.5, 1.5, 10.5, 10.5]]),
    ],
}  # fmt: skip


def lay(path, said=SAID):
    """The folder as the archives unpack."""
    (path / "annotations").mkdir()
    for part in ("train2017", "val2017"):
        (path / part).mkdir()
        (path / "annotations" / f"instances_{part}.json").write_text(json.dumps(said))
        for each in said["images"]:
            Image.new("RGB", (WIDTH, HEIGHT), (20, 200, 30)).save(path / part / each["file_name"])


@pytest.fixture
def coco(tmp_path):
    lay(tmp_path)
    return tmp_path


def test_boxes_and_masks_are_those_of_pycocotools_in_torchvision_s_order(coco):
    config = CocoData(path=str(coco))
    check(config)
    ours = build(config, "train")
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = CocoDetection(coco / "train2017", coco / "annotations" / "instances_train2017.json")
    assert ours.classes == ("person", "car", "toothbrush") and ours.labels is None and ours.channels == 3
    assert len(ours) == len(theirs) == 3
    for index in range(3):
        image, said = theirs[index]
        assert np.array_equal(np.asarray(ours.image(index)), np.asarray(image))
        assert ours.name_of(index) == f"train2017/{theirs.ids[index]:012}.jpg"
        boxes = [[x, y, x + width, y + height] for x, y, width, height in (each["bbox"] for each in said)]
        assert ours.boxes(index).tolist() == boxes and ours.boxes(index).shape == (len(said), 4)
        assert [ours.classes[label] for label in ours.box_labels(index)] == [
            theirs.coco.cats[each["category_id"]]["name"] for each in said
        ]
        assert ours.difficult(index).tolist() == [bool(each["iscrowd"]) for each in said]
        masks = ours.object_masks(index)
        assert masks.dtype == bool and masks.shape == (len(said), HEIGHT, WIDTH)
        for mask, each in zip(masks, said, strict=True):
            assert np.array_equal(mask, theirs.coco.annToMask(each).astype(bool))
    assert np.array_equal(ours.object_masks(0)[0], crowd())
    assert [ours.boxes(0).dtype, ours.box_labels(0).dtype, ours.difficult(0).dtype] == [np.float32, np.int64, bool]


def test_tags_are_1_where_an_object_is_and_0_where_a_crowd_is_all(coco):
    tags = build(CocoData(path=str(coco)), "test").tags
    assert tags.dtype == np.int8 and tags.tolist() == [[0, 1, -1], [-1, -1, -1], [-1, 1, 1]]


def test_it_is_composed_by_its_name(coco):
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "eval_data=coco", f"eval_data.path={coco}"])
    assert (spec.eval_data.name, spec.eval_data.truth) == ("coco", ("tags", "boxes", "masks"))
    assert len(build(spec.eval_data, "test")) == 3


@pytest.mark.parametrize("missing", ["annotations/instances_val2017.json", "train2017"])
def test_a_folder_that_is_laid_out_otherwise_is_refused_with_what_was_looked_for(coco, missing):
    (coco / missing).rename(coco / "away")
    with pytest.raises(InputError) as error:
        check(CocoData(path=str(coco)), "eval_data")
    line = str(error.value)
    assert line.startswith(
        f"eval_data.path={str(coco)!r}: '{coco / missing}' is missing; unpack train2017.zip, val2017"
    )
    assert "annotations/{instances_train2017,instances_val2017}.json" in line and "\n" not in line
    check(CocoData(path=str(coco)), at_hand=False)


def spoilt(change):
    said = copy.deepcopy(SAID)
    change(said)
    return said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("categories"), "it has no lists `images`, `annotations` and `categories`"),
        (lambda s: s["images"][0].update(file_name="../../etc/passwd"), "image 9: its file_name is '../../etc/passwd'"),
        (lambda s: s["images"][0].update(file_name=".."), "image 9: its file_name is '..', no name of a file"),
        (lambda s: s["images"][0].update(id=1), "two of `id` are one image"),
        (lambda s: s["images"][0].update(height=10**9), "image 9: its height and width are (1000000000, 60)"),
        (lambda s: s["images"][0].update(id="9"), "an image has no number `id`"),
        (lambda s: s["categories"][0].update(name="car"), "its categories have no names of their own"),
        (lambda s: s["annotations"][0].update(image_id=5), "annotation 0: KeyError (5)"),
        (lambda s: s["annotations"][1].update(bbox=[1, 2, 3]), "annotation 1: ValueError"),
        (lambda s: s["annotations"][1].update(bbox=[1, 2, 3, float("nan")]), "a box has coordinates that are no numb"),
        (
            lambda s: s["annotations"][2].update(segmentation=[[1, 2, 3]]),
            "annotation 2: ValueError (segmentation: no o",
        ),
        (lambda s: s["annotations"][1]["segmentation"].update(counts="abc"), "annotation 1: ValueError"),
        (lambda s: s["annotations"][1]["segmentation"].update(counts=[-5, 9]), "annotation 1: OverflowError"),
    ],
)
def test_a_file_of_objects_that_says_something_else_is_one_clear_error(tmp_path, change, said):
    lay(tmp_path)
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(spoilt(change)))
    with pytest.raises(InputError) as error:
        build(CocoData(path=str(tmp_path)), "train")
    assert f"annotations/instances_train2017.json: {said}" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "index", "said"),
    [
        (lambda s: s["annotations"][1]["segmentation"].update(counts=[1, 10**9]), 0, "the runs of a crowd are not of"),
        (lambda s: s["annotations"][0].update(segmentation=[[0, 0, 1e7, 5, 9, 9]]), 2, "an outline lies beyond its"),
        (lambda s: s["annotations"][0].update(segmentation=[[0, 0, float("nan"), 5, 9, 9]]), 2, "an outline lies bey"),
        (lambda s: s["annotations"][0].update(segmentation=[[0, 0, 60, 40] * 50_000]), 2, "an outline lies beyond its"),
    ],
)
def test_masks_that_no_image_can_have_are_refused_before_they_are_drawn(tmp_path, change, index, said):
    lay(tmp_path)
    (tmp_path / "annotations/instances_train2017.json").write_text(json.dumps(spoilt(change)))
    with pytest.raises(InputError, match=rf"instances_train2017\.json: 00000000000\d\.jpg: {said}"):
        build(CocoData(path=str(tmp_path)), "train").object_masks(index)


@pytest.mark.parametrize("text", ["", "[1, 2", "[" * 100_000, "\udcff"])
def test_what_is_no_json_is_said(coco, text):
    (coco / "annotations/instances_val2017.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"^data\.path: annotations/instances_val2017\.json: it holds no JSON; unpack"):
        build(CocoData(path=str(coco)), "test")


def test_an_image_that_is_missing_or_of_another_size_is_a_broken_one(coco):
    (coco / "val2017/000000000001.jpg").unlink()
    Image.new("RGB", (WIDTH + 1, HEIGHT)).save(coco / "val2017/000000000007.jpg")
    dataset = build(CocoData(path=str(coco)), "test")
    with pytest.raises(BrokenImage, match=r"^val2017/000000000001\.jpg: "):
        dataset.image(0)
    with pytest.raises(
        BrokenImage, match=r"^val2017/000000000007\.jpg: it has 61 x 40 pixels, and its boxes are of 60 x 40"
    ):
        dataset.image(1)
    assert dataset.image(2).size == (WIDTH, HEIGHT)
    for index in (-1, 3):
        with pytest.raises(IndexError):
            dataset.boxes(index)
