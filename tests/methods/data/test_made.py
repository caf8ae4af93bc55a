import functools
import re

import numpy as np
import pytest
from PIL import Image

from launcher.compose.training import resolve
from launcher.errors import InputError
from methods.data import build
from methods.data.photos import TEST, area, load
from methods.data.sets.made_objects import reader as made
from methods.data.sets.made_objects.reader import MadeObjects
from methods.data.sets.made_objects.spec import MadeObjectsData

WINDOW = re.compile(r"(\w+)\[(\d+):(\d+),(\d+):(\d+)\]")


@pytest.fixture(scope="module")
def splits():
    return {split: MadeObjects(split, images=200) for split in ("train", "test")}


def as_bytes(dataset, count):
    return [dataset.image(index).tobytes() for index in range(count)]


def test_an_image_is_a_function_of_seed_split_and_index(splits):
    again = MadeObjects("train", images=80)
    assert as_bytes(again, 40) == as_bytes(splits["train"], 40)
    assert np.array_equal(again.tags, splits["train"].tags[:80])
    assert again.image(3).tobytes() == again.image(3).tobytes()
    assert not {*as_bytes(MadeObjects("train", images=80, seed=1), 40)} & {*as_bytes(again, 40)}
    assert not {*as_bytes(splits["test"], 40)} & {*as_bytes(again, 40)}


@pytest.mark.parametrize("side", [48, 49, 64])
def test_a_train_image_has_no_test_pixel_and_a_test_image_has_no_other(side):
    pixels = {True: 0, False: 0}
    for split in ("train", "test"):
        dataset = MadeObjects(split, images=400, side=side)
        for index in range(len(dataset)):
            windows = WINDOW.findall(dataset.name_of(index))
            assert len(windows) == 1 + len(dataset.boxes(index))
            for _, top, bottom, left, right in windows:
                tested = area(np.arange(int(top), int(bottom)), np.arange(int(left), int(right))) == TEST
                assert tested.all() if split == "test" else not tested.any()
                pixels[split == "test"] += tested.size
    assert all(pixels.values())


def test_no_test_pixel_changes_a_train_image(splits, monkeypatch):
    """Whatever a name says: with other test pixels in every photograph the same train images are made."""

    @functools.cache
    def spoilt(name):
        pixels = np.array(load(name).convert("RGB"))
        pixels[area(*map(np.arange, pixels.shape[:2])) == TEST] = (255, 0, 255)
        return Image.fromarray(pixels)

    train, test = as_bytes(splits["train"], 60), as_bytes(splits["test"], 20)
    monkeypatch.setattr(made, "load", spoilt)
    assert as_bytes(splits["train"], 60) == train
    assert not {*as_bytes(splits["test"], 20)} & {*test}


def test_tags_are_those_of_the_objects_and_0_where_all_of_a_class_are_difficult(splits):
    for dataset in splits.values():
        assert dataset.tags.shape == (len(dataset), 6) and dataset.tags.dtype == np.int8 and dataset.labels is None
        assert set(np.unique(dataset.tags)) == {-1, 0, 1} and (dataset.tags == 1).any(1).all()
        for index in range(len(dataset)):
            labels, difficult = dataset.box_labels(index), dataset.difficult(index)
            certain, doubtful = {*labels[~difficult].tolist()}, {*labels[difficult].tolist()}
            wanted = [1 if c in certain else 0 if c in doubtful else -1 for c in range(6)]
            assert dataset.tags[index].tolist() == wanted
            assert 1 <= (~difficult).sum() <= 3 and labels.dtype == np.int64
    counts = (splits["train"].tags == 1).sum(0)
    assert counts.min() > 30  # every class is there to be learnt
    assert {(~splits["train"].difficult(i)).sum() for i in range(200)} == {1, 2, 3}


def test_boxes_are_tight_around_the_masks(splits):
    for index in range(100):
        mask, boxes = splits["train"].mask(index), splits["train"].boxes(index)
        assert boxes.dtype == np.float32 and boxes.shape == (len(splits["train"].box_labels(index)), 4)
        assert mask.dtype == np.uint8 and mask.max() == len(boxes)
        for number, (left, top, right, bottom) in enumerate(boxes.astype(int), 1):
            inside = mask[top:bottom, left:right] == number
            assert inside.sum() == (mask == number).sum() > 8
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()


def test_each_object_has_a_mask_of_its_own(splits):
    for index in range(30):
        masks, mask = splits["test"].object_masks(index), splits["test"].mask(index)
        assert masks.dtype == bool and masks.shape == (len(splits["test"].boxes(index)), 64, 64)
        assert masks.any((1, 2)).all() and masks.sum(0).max() == 1
        assert np.array_equal((masks * np.arange(1, len(masks) + 1)[:, None, None]).sum(0), mask)


def test_an_object_stands_out_where_its_mask_is_and_nowhere_else(splits):
    for index in range(40):
        background = splits["train"]._drawn(index)[0].pixels().resize((64, 64), Image.Resampling.BILINEAR)
        changed = np.abs(np.asarray(background, int) - np.asarray(splits["train"].image(index), int)).mean(2)
        mask = splits["train"].mask(index)
        around = np.pad(mask, 1)
        near = np.max([around[r : r + 64, c : c + 64] for r in range(3) for c in range(3)], axis=0) > 0
        assert changed[~near].max() == 0
        for number in range(1, mask.max() + 1):
            assert changed[mask == number].mean() > 15


def test_it_is_typed_with_a_slash_and_built_from_its_config():
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "eval_data=made/objects", "eval_data.images=100"])
    assert (spec.eval_data.name, spec.eval_data.images) == ("made/objects", 100) and spec.eval_data.truth[0] == "tags"
    assert [len(build(spec.eval_data, split)) for split in ("train", "test")] == [100, 25]
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "data=made/objects", "data.seed=3"])
    assert build(spec.data, "train").image(0).size == (64, 64)
    with pytest.raises(InputError, match=r"^eval_data=made/object: there is no such name; did you mean made/objects\?"):
        resolve(["method=rotnet", "recipe=tiny", "eval_data=made/object"])


def test_a_yaml_of_ones_own_extends_it(tmp_path):
    (tmp_path / "eval_data").mkdir()
    (tmp_path / "eval_data" / "mine.yaml").write_text("defaults:\n  - made/objects\n  - _self_\nseed: 5\n")
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "eval_data=mine"], config_dir=tmp_path)
    assert (spec.eval_data.name, spec.eval_data.seed) == ("made/objects", 5)


@pytest.mark.parametrize("wrong", [{"images": 10}, {"side": 96}, {"seed": -1}, {"max_broken": 2.0}])
def test_wrong_values_are_refused_in_a_line(wrong):
    with pytest.raises(InputError, match=rf"^data\.{next(iter(wrong))}=.*; give "):
        build(MadeObjectsData(**wrong), "train")
