"""Files to the letter of the layouts of Places, iNaturalist, Flowers and Cars, and what of them is refused.

Where torchvision reads a data set, it says what is right.
"""

import json
import os

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from launcher.compose.training import resolve
from launcher.errors import InputError
from methods.data import build
from methods.data.dataset import BrokenImage
from methods.data.sets.cars.spec import CarsData
from methods.data.sets.flowers.spec import FlowersData
from methods.data.sets.inaturalist.spec import INaturalistData
from methods.data.sets.places.spec import Places205Data, Places365Data
from methods.data.spec import check, check_columns, no_labels


def shot(file, width=8):
    """An image whose width tells which it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 7), (200, 30, 30)).save(file)


def listed(file, pairs):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{name} {label}\n" for name, label in pairs))


def lay_places205(root):
    parts = {
        "train": [("a/abbey/gsun_1.jpg", 0), ("b/bar/gsun_2.jpg", 14), ("a/abbey/gsun_3.jpg", 0)],
        "val": [("b/bar/gsun_4.jpg", 14)],
    }
    for part, pairs in parts.items():
        listed(root / "trainvalsplit_places205" / f"{part}_places205.csv", pairs)
        for place, (name, _) in enumerate(pairs):
            shot(root / "data/vision/torralba/deeplearning/images256" / name, 9 + place)


def lay_places365(root, train="data_256_standard", val="val_256"):
    listed(root / "categories_places365.txt", [(f"/a/place{number:03d}", number) for number in range(365)])
    parts = {
        "train_standard": [("/a/place000/00000001.jpg", 0), ("/a/place007/00000001.jpg", 7)],
        "val": [("Places365_val_00000001.jpg", 165), ("Places365_val_00000002.jpg", 7)],
    }
    for part, pairs in parts.items():
        listed(root / f"places365_{part}.txt", pairs)
        for place, (name, _) in enumerate(pairs):
            shot(root / (val if part == "val" else train) / name.lstrip("/"), 9 + place)


def lay_flowers(root):
    for number in range(1, 13):
        shot(root / "jpg" / f"image_{number:05d}.jpg", 8 + number)
    labels = np.array([[77, 77, 1, 1, 102, 102, 5, 5, 5, 6, 6, 6]], np.uint8)  # as published: a row of bytes
    savemat(root / "imagelabels.mat", {"labels": labels}, do_compression=True)
    sets = {"trnid": [[1, 3, 7]], "valid": [[10, 5]], "tstid": [[12, 2, 4, 6, 8, 9, 11]]}
    savemat(root / "setid.mat", {name: np.array(ids, np.uint16) for name, ids in sets.items()}, do_compression=True)


def annotations(rows):
    """As published: a row of structures."""
    kind = [("bbox_x1", object), ("class", object), ("fname", object)]
    return {"annotations": np.array([[(np.uint16(3), np.uint8(label), name) for name, label in rows]], dtype=kind)}


def lay_cars(root, compressed=True):
    (root / "devkit").mkdir(parents=True)
    names = np.array([[f"Make {number} Coupe 2012" for number in range(1, 197)]], object)
    how = {"do_compression": compressed}
    savemat(root / "devkit/cars_meta.mat", {"class_names": names}, **how)
    parts = {
        "train": [("00001.jpg", 14), ("00002.jpg", 196), ("00003.jpg", 1)],
        "test": [("00001.jpg", 7), ("00002.jpg", 8)],
    }
    savemat(root / "devkit/cars_train_annos.mat", annotations(parts["train"]), **how)
    savemat(root / "cars_test_annos_withlabels.mat", annotations(parts["test"]), **how)
    for part, rows in parts.items():
        for place, (name, _) in enumerate(rows):
            shot(root / f"cars_{part}" / name, 9 + place)


def lay_inaturalist(root, year=2018, classes=8142):
    categories = [{"id": number, "name": f"species {number}", "supercategory": "Aves"} for number in range(classes)]
    parts = {"train": [(11, "Aves/2/aa.jpg", 2), (12, "Plantae/0/bb.jpg", 0)], "val": [(13, "Aves/2/cc.jpg", 2)]}
    for part, rows in parts.items():
        said = {
            "info": {},
            "images": [{"id": each, "file_name": f"train_val{year}/{name}"} for each, name, _ in rows],
            "annotations": [{"id": each, "image_id": each, "category_id": label} for each, _, label in rows[::-1]],
            "categories": categories,
        }
        (root / f"{part}{year}.json").write_text(json.dumps(said))
        for place, (_, name, _) in enumerate(rows):
            shot(root / f"train_val{year}" / name, 9 + place)


LAYOUTS = {
    "places205": (lay_places205, Places205Data),
    "places365": (lay_places365, Places365Data),
    "flowers": (lay_flowers, FlowersData),
    "cars": (lay_cars, CarsData),
    "inaturalist": (lay_inaturalist, INaturalistData),
}


@pytest.fixture
def lay(tmp_path):
    """`lay(name)`: a config of the data set, laid out to the letter."""

    def made(name, **how):
        layout, kind = LAYOUTS[name]
        layout(tmp_path, **how)
        return kind(path=str(tmp_path))

    return made


def seen(dataset):
    """What torchvision and we must agree on."""
    return [(dataset.image(i).size, int(dataset.labels[i])) for i in range(len(dataset))]


def theirs(*parts):
    return [(image.size, int(label)) for part in parts for image, label in (part[i] for i in range(len(part)))]


def test_places365_is_what_torchvision_reads(lay, tmp_path, monkeypatch):
    config = lay("places365")
    monkeypatch.setattr("torchvision.datasets.places365.check_integrity", lambda file, md5: os.path.isfile(file))
    check(config)
    for split, part in (("train", "train-standard"), ("test", "val")):
        expected, found = datasets.Places365(str(tmp_path), part, small=True), build(config, split)
        assert seen(found) == theirs(expected) and list(found.classes) == [c.lstrip("/") for c in expected.classes]
    assert build(config, "train").name_of(1) == "a/place007/00000001.jpg"


def test_places365_is_found_as_its_archives_unpack_small_or_large(tmp_path):
    for place, folders in enumerate((("data_256", "val_256"), ("data_large", "val_large"))):
        root = tmp_path / str(place)
        lay_places365(root, *folders)
        config = Places365Data(path=str(root))
        check(config)
        assert seen(build(config, "test")) == [((9, 7), 165), ((10, 7), 7)]


def test_places205_has_its_lists_labels_and_its_folders_names(lay):
    config = lay("places205")
    check(config)
    train, test = build(config, "train"), build(config, "test")
    assert seen(train) == [((9, 7), 0), ((10, 7), 14), ((11, 7), 0)] and seen(test) == [((9, 7), 14)]
    assert train.labels.dtype == np.int64 and len(train.classes) == len(test.classes) == 205
    assert (train.classes[0], train.classes[14], train.classes[3]) == ("a/abbey", "b/bar", "3")


@pytest.mark.parametrize("inner", ["", "flowers-102"])
def test_flowers_are_what_torchvision_reads_its_training_and_validation_images_together(tmp_path, inner, monkeypatch):
    (tmp_path / "flowers-102").mkdir()
    lay_flowers(tmp_path / "flowers-102")
    monkeypatch.setattr("torchvision.datasets.flowers102.check_integrity", lambda file, md5: os.path.isfile(file))
    config = FlowersData(path=str(tmp_path / inner))
    check(config)
    train, val, test = (datasets.Flowers102(str(tmp_path), part) for part in ("train", "val", "test"))
    assert seen(build(config, "train")) == theirs(train, val) and seen(build(config, "test")) == theirs(test)
    assert len(build(config, "test").classes) == 102 and build(config, "train").name_of(4) == "jpg/image_00005.jpg"


@pytest.mark.parametrize("compressed", [True, False])
def test_cars_are_what_torchvision_reads(tmp_path, compressed):
    lay_cars(tmp_path / "stanford_cars", compressed)
    for path in (tmp_path, tmp_path / "stanford_cars"):
        config = CarsData(path=str(path))
        check(config)
        for split in ("train", "test"):
            expected, found = datasets.StanfordCars(str(tmp_path), split), build(config, split)
            assert seen(found) == theirs(expected) and list(found.classes) == expected.classes
    assert build(config, "test").name_of(0) == "cars_test/00001.jpg"


@pytest.mark.parametrize(("year", "classes"), [(2018, 8142), (2019, 1010)])
def test_inaturalist_trains_on_train_and_judges_on_val(tmp_path, year, classes):
    lay_inaturalist(tmp_path, year, classes)
    config = INaturalistData(path=str(tmp_path), year=year)
    check(config)
    train, test = build(config, "train"), build(config, "test")
    assert seen(train) == [((9, 7), 2), ((10, 7), 0)] and seen(test) == [((9, 7), 2)]
    assert len(train.classes) == classes and train.classes[2] == "species 2"
    assert train.name_of(0) == f"train_val{year}/Aves/2/aa.jpg"
    with pytest.raises(InputError, match=rf"method.classes=100: the data have {classes}; set method.classes={classes}"):
        check_columns(config, ("label",), classes=100)
    check_columns(config, ("label",), classes=classes)
    with pytest.raises(InputError, match=r"^data.year=2016: no such year is read; give 2018 or 2019$"):
        check(INaturalistData(path=str(tmp_path), year=2016), at_hand=False)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("places205", "trainvalsplit_places205/val_places205.csv"),
        ("places205", "data/vision/torralba/deeplearning/images256/a/abbey/gsun_1.jpg"),
        ("places365", "categories_places365.txt"),
        ("places365", "places365_train_standard.txt"),
        ("places365", "val_256/Places365_val_00000001.jpg"),
        ("flowers", "imagelabels.mat"),
        ("flowers", "setid.mat"),
        ("flowers", "jpg/image_00001.jpg"),
        ("cars", "devkit/cars_meta.mat"),
        ("cars", "cars_test_annos_withlabels.mat"),
        ("cars", "cars_test/00001.jpg"),
        ("inaturalist", "val2018.json"),
    ],
)
def test_a_file_that_is_not_there_is_told_in_a_line_with_what_to_unpack(lay, tmp_path, name, gone):
    config = lay(name)
    check(config, "eval_data")
    (tmp_path / gone).unlink()
    with pytest.raises(InputError) as error:
        check(config, "eval_data")
    line = str(error.value)
    assert line.startswith(f"eval_data.path={str(tmp_path)!r}: ") and f"{gone}" in line and "\n" not in line
    assert "is missing; " in line and ("unpack" in line or "put" in line)
    check(config, at_hand=False)


def test_inaturalist_s_images_are_looked_for(lay, tmp_path):
    config = lay("inaturalist")
    (tmp_path / "train_val2018").rename(tmp_path / "images")
    said = r"train_val2018' is missing; unpack train_val2018.tar.gz, train2018.json.tar.gz and val2018.json.tar.gz into"
    with pytest.raises(InputError, match=said):
        check(config)


@pytest.mark.parametrize("name", LAYOUTS)
def test_without_a_folder_a_person_is_told_which(name):
    kind = LAYOUTS[name][1]
    with pytest.raises(InputError, match=r"^data.path=null: .*; give the folder .*: data.path=/path/to/it$"):
        check(kind())
    with pytest.raises(InputError, match=r"^data.path='/nowhere/at/all': does not exist on this machine"):
        check(kind(path="/nowhere/at/all"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_comes_through_composing_with_labels_of_a_known_number(lay, tmp_path, name):
    lay(name)
    words = ["method=rotnet", "recipe=tiny", f"data={name}", f"data.path={tmp_path}"]
    spec, _ = resolve(words)
    assert spec.data.name == name and no_labels(spec.data) is None and len(build(spec.data, "test")) > 0
    with pytest.raises(InputError, match=r"^method.classes=10: the data have \d+; set method.classes="):
        check_columns(spec.data, ("label",), classes=10)


@pytest.mark.parametrize("name", LAYOUTS)
def test_images_that_are_damaged_missing_or_no_file_are_broken_under_their_name(lay, tmp_path, name):
    config = lay(name)
    dataset = build(config, "train")
    with pytest.raises(IndexError):
        dataset.image(len(dataset))
    roots = {"places205": "data/vision/torralba/deeplearning/images256", "places365": "data_256_standard"}
    file = tmp_path / roots.get(name, "") / dataset.name_of(1)
    for spoil in (lambda: file.write_bytes(b"no JPEG"), file.unlink, lambda: os.mkfifo(file)):
        spoil()
        with pytest.raises(BrokenImage) as error:
            dataset.image(1)
        assert error.value.name == dataset.name_of(1) and file.name in error.value.name
    file.unlink()
    shot(file.with_name("big.jpg"), 40)
    file.symlink_to(file.with_name("big.jpg"))
    assert dataset.image(1).size == (40, 7)
    with pytest.raises(BrokenImage, match=r"40 x 7 pixels are more than data.max_pixels=100 allows"):
        build(LAYOUTS[name][1](path=str(tmp_path), max_pixels=100), "train").image(1)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a/abbey/1.jpg", "line 2, 'a/abbey/1.jpg', is not `PATH LABEL`, LABEL 0 to 204"),
        ("a/abbey/1.jpg 205", "line 2"),
        ("a/abbey/1.jpg -1", "line 2"),
        ("a/abbey/1.jpg x", "line 2"),
        ("a/abbey/1.jpg 1 1", "line 2"),
        ("../../etc/passwd 1", r"line 2, '../../etc/passwd 1', is not"),
        ("//etc/passwd 1", "line 2"),
        ("a/\x1b[31m.jpg 1", "line 2"),
    ],
)
def test_a_line_that_says_something_else_is_told(lay, tmp_path, line, said):
    config = lay("places205")
    (tmp_path / "trainvalsplit_places205/train_places205.csv").write_text(f"a/abbey/gsun_1.jpg 0\n{line}\n")
    with pytest.raises(InputError) as error:
        build(config, "train")
    assert said in str(error.value) and str(error.value).startswith("data.path: ") and "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said["images"][0].update(file_name="../../x.jpg"),
        lambda said: said["images"][0].pop("file_name"),
        lambda said: said["annotations"].pop(),
        lambda said: said["annotations"][0].update(category_id=9000),
        lambda said: said["annotations"][0].update(category_id=1.5),
        lambda said: said["categories"].pop(),
        lambda said: said.update(images=[], annotations=[]),
        lambda said: said.update(images=7),
    ],
)
def test_json_that_says_something_else_is_told(lay, tmp_path, change):
    config, file = lay("inaturalist"), tmp_path / "train2018.json"
    said = json.loads(file.read_text())
    change(said)
    file.write_text(json.dumps(said))
    with pytest.raises(InputError, match=r"^data.path: '.*train2018.json' .*; unpack train_val2018.tar.gz") as error:
        build(config, "train")
    assert "\n" not in str(error.value)
    file.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not as published"):
        build(config, "train")


def test_categories_must_be_all_of_places365(lay, tmp_path):
    config = lay("places365")
    listed(tmp_path / "categories_places365.txt", [(f"/a/p{number}", number) for number in range(364)])
    with pytest.raises(InputError, match="it does not name classes 0 to 364, each once"):
        build(config, "test")


@pytest.mark.parametrize(
    ("file", "made"),
    [
        ("setid.mat", {"trnid": [[1, 99]], "valid": [[1]], "tstid": [[1]]}),
        ("setid.mat", {"trnid": [[0]], "valid": [[1]], "tstid": [[1]]}),
        ("setid.mat", {"trnid": [["x"]], "valid": [[1]], "tstid": [[1]]}),
        ("setid.mat", {"trnid": [[1]]}),
        ("imagelabels.mat", {"labels": [[1.5, 2]]}),
        ("imagelabels.mat", {"labels": [[103]]}),
        ("imagelabels.mat", {"label": [[1]]}),
    ],
)
def test_variables_that_are_missing_or_hold_something_else_are_told(lay, tmp_path, file, made):
    config = lay("flowers")
    savemat(tmp_path / file, made)
    with pytest.raises(InputError, match=rf"^data.path: '.*{file}' has .*; put imagelabels.mat and setid.mat into"):
        build(config, "train")


def test_names_of_cars_that_lead_elsewhere_are_refused(lay, tmp_path):
    config = lay("cars")
    savemat(tmp_path / "devkit/cars_train_annos.mat", annotations([("../../x.jpg", 1), ("00002.jpg", 1)]))
    with pytest.raises(InputError, match=r"it names something else than images; unpack car_devkit\.tgz"):
        build(config, "train")
    savemat(tmp_path / "devkit/cars_train_annos.mat", annotations([("00001.jpg", 197)]))
    with pytest.raises(InputError, match="has something else than numbers from 1 to 196"):
        build(config, "train")
