import re

import numpy as np
import pytest

from launcher.errors import InputError
from methods import data
from methods.data.photos import FILES, SCALES, Photos, load
from methods.data.sets.photos.spec import LARGEST_PATCH, PhotosData

SHAPE = re.compile(r"(\w+)\[(\d+):(\d+),(\d+):(\d+)\]@(1|2/3|1/2)")
SPLITS = ("train", "test")


@pytest.fixture(scope="module")
def splits():
    return {split: Photos(split, images=760) for split in SPLITS}


def window(name):
    source, *edges, scale = SHAPE.fullmatch(name).groups()
    return source, *map(int, edges), scale


def test_sizes_classes_and_types(splits):
    assert len(splits["train"]) == 760 and len(splits["test"]) == 190
    for photos in splits.values():
        assert photos.labels.dtype == np.int64 and photos.labels.shape == (len(photos),)
        assert np.ptp(np.bincount(photos.labels)) == 0 and len(photos.classes) == len(FILES) == 19
        assert photos.channels == 1 and photos.image(3).mode == "L" and photos.image(3).size == (32, 32)


def test_no_test_pixel_is_in_a_train_patch(splits):
    seen = covered(splits["train"])
    for index in range(len(splits["test"])):
        source, top, bottom, left, right, _ = window(splits["test"].name_of(index))
        assert not seen[source][top:bottom, left:right].any()


def covered(photos):
    seen = {name: np.zeros(load(name).size[::-1], bool) for name in Photos.classes}
    for index in range(len(photos)):
        source, top, bottom, left, right, _ = window(photos.name_of(index))
        seen[source][top:bottom, left:right] = True
    return seen


@pytest.mark.parametrize("patch", [8, 32, LARGEST_PATCH["validation"]])
def test_what_recipes_are_chosen_by_shows_no_test_pixel_and_is_not_trained_on(patch):
    train, held_out = (covered(Photos(each, patch=patch, images=3040, held_out="validation")) for each in SPLITS)
    tested = covered(Photos("test", patch=patch, images=3040))
    for name in Photos.classes:
        assert not (tested[name] & (train[name] | held_out[name])).any() and not (train[name] & held_out[name]).any()
        assert train[name].any() and held_out[name].any()


def test_validation_patches_are_cut_from_what_is_otherwise_trained_on(splits):
    chosen_by = covered(Photos("test", images=760, held_out="validation"))
    everything = covered(Photos("train", images=3040))
    assert sum((chosen_by[name] & everything[name]).sum() for name in chosen_by) > 0
    config = PhotosData(images=760, held_out="validation")
    for split in SPLITS:
        built, same = data.build(config, split), Photos(split, images=760, held_out="validation")
        assert [built.name_of(i) for i in range(len(built))] == [same.name_of(i) for i in range(len(same))]
    with pytest.raises(InputError, match=r"^data.held_out=train: no such choice; use test or validation"):
        data.build(PhotosData(held_out="train"), "test")
    with pytest.raises(InputError, match=r"^data.patch=40: out of range; give 8 to 36"):
        data.build(PhotosData(held_out="validation", patch=40), "test")


def test_a_name_tells_the_class_and_the_pixels(splits):
    scales = set()
    for index in range(60):
        source, top, bottom, left, right, scale = window(splits["train"].name_of(index))
        assert source == Photos.classes[splits["train"].labels[index]] and bottom - top == right - left
        scales.add(scale)
        if scale == "1":
            pixels = np.asarray(load(source).convert("L"))[top:bottom, left:right]
            assert np.array_equal(np.asarray(splits["train"].image(index)), pixels)
    assert scales == set(SCALES.values())


def test_the_same_patches_every_time_and_fewer_are_a_prefix(splits):
    fewer = Photos("train", images=200)
    for index in range(len(fewer)):
        assert fewer.name_of(index) == splits["train"].name_of(index)
        assert fewer.image(index).tobytes() == splits["train"].image(index).tobytes()


def test_colour_cuts_the_same_windows(splits):
    colour = Photos("test", images=760, colour=True)
    assert colour.channels == 3 and colour.image(0).mode == "RGB"
    assert [colour.name_of(i) for i in range(190)] == [splits["test"].name_of(i) for i in range(190)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "val"},
        {"split": "test", "held_out": "val"},
        {"split": "train", "patch": 64},
        {"split": "train", "patch": 37, "held_out": "validation"},
        {"split": "train", "images": 5},
    ],
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError):
        Photos(**wrong)
