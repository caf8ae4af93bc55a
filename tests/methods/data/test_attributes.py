"""CUB and AWA2 to the letter of their layouts, and the images made here whose classes are known by attributes."""

import functools
import itertools
import re

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from launcher.compose.training import resolve
from launcher.errors import InputError
from methods.data import build
from methods.data.dataset import BrokenImage
from methods.data.photos import TEST, area, load
from methods.data.sets.attributes.spec import Awa2Data, CubData
from methods.data.sets.made_attributes import reader as made_attributes
from methods.data.sets.made_attributes.reader import MadeAttributes
from methods.data.sets.made_objects import reader as made_objects
from methods.data.spec import check

# As in the published files, whose paths are of their authors: what everybody has is at their ends.
PLACES = {
    "cub": (CubData, "/authors/work/CUB_200_2011/CUB_200_2011/images/", "CUB_200_2011/images", "CUB"),
    "awa2": (
        Awa2Data,
        "/authors/work/data/Animals_with_Attributes2//JPEGImages/",
        "Animals_with_Attributes2/JPEGImages",
        "AWA2",
    ),
}
IMAGES = ["ox/ox_1.jpg", "fox/fox_1.jpg", "ox/ox_2.jpg", "bat/bat_1.jpg", "fox/fox_2.jpg", "bat/bat_2.jpg"]
LABELS = [3, 1, 3, 2, 1, 2]  # from 1 on
ATTRIBUTES = np.array([[0.6, 0.8, 0.0], [0.0, 0.6, 0.8], [1.0, 0.0, 0.0]])  # of fox, bat and ox


def column(values):
    return np.array(values, np.float64)[:, None]


def lay(root, name):
    """A config of the data set, laid out so that its ox and fox are seen, and the bat is not."""
    kind, theirs, shots, folder = PLACES[name]
    splits = root / "xlsa17/data" / folder
    splits.mkdir(parents=True)
    said = {"att": ATTRIBUTES.T, "original_att": 100 * ATTRIBUTES.T}
    said |= {"trainval_loc": column([1, 5]), "test_seen_loc": column([2, 3]), "test_unseen_loc": column([6, 4])}
    said |= {"train_loc": column([1]), "val_loc": column([5])}
    savemat(splits / "att_splits.mat", said, do_compression=True)
    paths = np.array([[theirs + each] for each in IMAGES], object)
    listed = {"features": np.zeros((2048, 6)), "image_files": paths, "labels": column(LABELS)}
    savemat(splits / "res101.mat", listed, do_compression=True)
    for place, each in enumerate(IMAGES):
        file = root / shots / each
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (10 + place, 7)).save(file)
    return kind(path=str(root))


@pytest.mark.parametrize("name", PLACES)
def test_images_are_split_as_xlsa17_says_with_the_attributes_of_their_classes(tmp_path, name):
    config = lay(tmp_path, name)
    check(config)
    train, test = build(config, "train"), build(config, "test")
    assert [train.image(i).size[0] for i in range(2)] == [10, 14] and train.labels.tolist() == [2, 0]
    assert [test.image(i).size[0] for i in range(4)] == [11, 12, 15, 13] and test.labels.tolist() == [0, 2, 1, 1]
    for split in (train, test):
        assert split.classes == ("fox", "bat", "ox") and split.seen.tolist() == [True, False, True]
        assert split.attributes.dtype == np.float32
        np.testing.assert_allclose(split.attributes, ATTRIBUTES, atol=1e-7)
    assert test.name_of(2) == "bat/bat_2.jpg"
    (tmp_path / PLACES[name][2] / "bat/bat_2.jpg").unlink()
    with pytest.raises(BrokenImage, match=r"^bat/bat_2\.jpg: "):
        test.image(2)


@pytest.mark.parametrize("gone", ["xlsa17/data/AWA2/att_splits.mat", "xlsa17/data/AWA2/res101.mat"])
def test_a_file_of_the_splits_that_is_not_there_is_told(tmp_path, gone):
    config = lay(tmp_path, "awa2")
    (tmp_path / gone).unlink()
    said = (
        rf"^eval_data.path=.*{gone}' is missing; unpack AwA2-data.zip and xlsa17.zip into one folder, which makes \{{"
    )
    with pytest.raises(InputError, match=said) as error:
        check(config, "eval_data")
    assert "\n" not in str(error.value)
    check(config, at_hand=False)


def test_the_folder_of_images_is_looked_for(tmp_path):
    config = lay(tmp_path, "cub")
    (tmp_path / "CUB_200_2011/images").rename(tmp_path / "CUB_200_2011/shots")
    with pytest.raises(InputError, match=r"CUB_200_2011/images' is missing; unpack CUB_200_2011.tgz and xlsa17.zip"):
        check(config)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("att_splits.mat", {"trainval_loc": column([1, 7])}, "has something else than numbers from 1 to 6"),
        ("att_splits.mat", {"trainval_loc": column([1, 4])}, "its seen classes are others than"),
        ("att_splits.mat", {"test_unseen_loc": column([1])}, "its seen classes are others than"),
        ("att_splits.mat", {"att": ATTRIBUTES.T * np.nan}, "`att` is no matrix of numbers"),
        ("att_splits.mat", {"att": ATTRIBUTES[:2].T}, "has something else than numbers from 1 to 2"),
        ("res101.mat", {"labels": column([1, 2])}, "6 images have 2 labels"),
        ("res101.mat", {"image_files": np.array([["/x/.."]] * 6, object)}, "it names something else than images"),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path, file, change, said):
    config, path = lay(tmp_path, "cub"), tmp_path / "xlsa17/data/CUB" / file
    savemat(path, {name: value for name, value in loadmat(path).items() if name[0] != "_"} | change)
    with pytest.raises(InputError, match=said) as error:
        build(config, "train")
    assert str(error.value).startswith("data.path: ") and "\n" not in str(error.value)


WINDOW = re.compile(r"(\w+)\[(\d+):(\d+),(\d+):(\d+)\]")


@pytest.fixture(scope="module")
def splits():
    return {split: MadeAttributes(split, images=512) for split in ("train", "test")}


def test_unseen_classes_have_test_images_alone_and_no_attribute_that_training_does_not_show(splits):
    train, test = splits["train"], splits["test"]
    assert sorted({*train.labels.tolist()}) == np.flatnonzero(train.seen).tolist() and len(train) == 512
    assert sorted({*test.labels.tolist()}) == list(range(32)) and len(test) == 128
    assert train.attributes.shape == (32, 10) and (train.attributes.sum(1) == 3).all()
    assert len({tuple(row) for row in train.attributes.tolist()}) == 32
    known = train.attributes[train.seen]
    together = known.T @ known > 0
    for first, second in itertools.product(range(10), repeat=2):
        apart = {0: 0, 4: 1, 8: 2}  # shapes, materials and sizes: one of each kind
        kinds = [max(start for start in apart if start <= each) for each in (first, second)]
        assert together[first, second] == (first == second or kinds[0] != kinds[1])
    assert (~train.seen).sum() == 8 and (train.attributes[~train.seen].sum(0) == [2] * 8 + [4] * 2).all()


def test_an_image_shows_what_the_attributes_of_its_class_say(splits):
    for split in splits.values():
        for index in range(0, len(split), 7):
            size, rest = split.classes[split.labels[index]].split(" ", 1)
            shape, material = rest.split(" of ")
            name = split.name_of(index)
            ((photograph, *_),) = WINDOW.findall(name.split(" + ")[1])
            assert photograph == material and name.split(" + ")[1].startswith(f"{shape} of ")
            row = split.attributes[split.labels[index]]
            assert row[made_attributes.SHAPES.index(shape)] == row[4 + made_attributes.MATERIALS.index(material)] == 1
            assert row[8 + ["small", "large"].index(size)] == 1
            (box,) = split._pasted.boxes(index)
            assert (max(box[2] - box[0], box[3] - box[1]) > 26) == (size == "large")
            assert split.image(index).size == (64, 64) and split.image(index).mode == "RGB"


def test_it_is_a_function_of_seed_split_and_index_and_fewer_are_the_first_of_more(splits):
    def as_bytes(dataset, count=40):
        return [dataset.image(index).tobytes() for index in range(count)]

    fewer = MadeAttributes("train", images=200)
    assert as_bytes(fewer) == as_bytes(splits["train"]) and np.array_equal(fewer.labels, splits["train"].labels[:200])
    assert not {*as_bytes(MadeAttributes("train", images=200, seed=1))} & {*as_bytes(fewer)}
    assert not {*as_bytes(splits["test"])} & {*as_bytes(fewer)}


def test_no_test_pixel_is_in_a_train_image(splits, monkeypatch):
    @functools.cache
    def spoilt(name):
        pixels = np.array(load(name).convert("RGB"))
        pixels[area(*map(np.arange, pixels.shape[:2])) == TEST] = (255, 0, 255)
        return Image.fromarray(pixels)

    before = {split: [each.image(i).tobytes() for i in range(48)] for split, each in splits.items()}
    monkeypatch.setattr(made_objects, "load", spoilt)
    after = {split: [each.image(i).tobytes() for i in range(48)] for split, each in splits.items()}
    assert after["train"] == before["train"] and not {*after["test"]} & {*before["test"]}


def test_it_is_typed_with_a_slash_and_wrong_values_are_refused():
    words = ["method=rotnet", "recipe=tiny", "eval_data=made/attributes"]
    spec, _ = resolve([*words, "eval_data.images=128", "eval_data.side=48"])
    assert [len(build(spec.eval_data, split)) for split in ("train", "test")] == [128, 32]
    assert build(spec.eval_data, "test").image(31).size == (48, 48)
    for wrong in ("images=100", "side=96", "seed=-1"):
        with pytest.raises(InputError, match=rf"^eval_data\.{wrong}: .*; give "):
            resolve([*words, f"eval_data.{wrong}"])
