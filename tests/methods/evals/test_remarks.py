"""Scores that cannot be good, or are not there, come with a word about the images."""

import io
import json
import tarfile
from types import SimpleNamespace

import pytest
from PIL import Image

from methods.data.sets.image_folder.spec import ImageFolderData
from methods.data.sets.shards.spec import ShardsData
from methods.evals.during import labelled
from methods.evals.linear.spec import Linear
from methods.evals.remarks import remarks


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def fill(root, images, *classes):
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (4, 4)).save(root / name / f"{number}.png")
    return root


def said(data=None, *, eval_data=None):
    from methods.data import build

    spec = SimpleNamespace(data=data, eval_data=eval_data)
    dataset = build(data, "train") if data else None
    return remarks(spec, dataset, labelled(spec, dataset))


def folder(path, **options):
    return ImageFolderData(path=str(path), **options)


def test_one_image_a_class_is_said(tmp_path):
    data = folder(fill(tmp_path, 1, *(f"c{number:02d}" for number in range(40))))
    (line,) = said(data)
    assert line.startswith(
        "no score can be right about 4 of the 4 images that judge: their classes (c11, c15, c22, ...)"
    )


def test_a_class_that_is_held_out_alone_is_said(tmp_path):
    fill(tmp_path / "train", 3, "cat", "dog")
    fill(tmp_path / "val", 2, "cat", "dog")
    assert said(folder(tmp_path)) == []


def shards(root, labels):
    root.mkdir()
    with tarfile.open(root / "a.tar", "w") as archive:
        for number, label in enumerate(labels):
            picture = io.BytesIO()
            Image.new("RGB", (4, 4)).save(picture, "PNG")
            for name, content in (
                (f"{number:03d}.cls", str(label).encode()),
                (f"{number:03d}.png", picture.getvalue()),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return ShardsData(path=str(root))


def test_labels_that_are_not_contiguous_are_said(tmp_path):
    assert said(shards(tmp_path / "gaps", [0, 5, 9] * 20)) == ["7 of 10 classes have no image at all: 1, 2, 3, ..."]
    assert said(shards(tmp_path / "all", [0, 1, 2] * 20)) == []


@pytest.mark.parametrize("what", ["wrapped", "stray", "flat val", "eval_data"])
def test_labels_that_vanish_are_said(tmp_path, what):
    data, eval_data = folder(tmp_path / "data"), None
    if what == "wrapped":
        fill(tmp_path / "data" / "my images", 5, "cat", "dog")
        says = f"in which there are others; data.path='{tmp_path}/data/my images' takes these for classes"
    elif what == "stray":
        Image.new("RGB", (4, 4)).save(fill(tmp_path / "data", 5, "cat", "dog") / "preview.png")
        says = "preview.png lies beside the folders that could be classes"
    elif what == "flat val":
        fill(tmp_path / "data" / "train", 5, "cat", "dog")
        Image.new("RGB", (4, 4)).save(fill(tmp_path / "data", 0, "val") / "val" / "0.png")
        says = "the images that judge have no labels"
    else:
        fill(tmp_path / "data", 5, "cat", "dog")
        eval_data, says = folder(fill(tmp_path / "other", 5, ".") / "."), "eval_data has no labels"
    (line,) = said(data, eval_data=eval_data)
    assert line.startswith("k-NN is left out: ") and line.endswith(says), line


def test_images_that_were_never_meant_to_have_labels_are_no_news(tmp_path):
    flat = fill(tmp_path, 5, "pictures")
    assert said(folder(flat / "pictures")) == []
    assert said(folder(flat)) == []
    assert said(folder(fill(tmp_path / "two", 5, "cat", "dog"), labels="none")) == []


def notices(evaluated, *words):
    asked = evaluated.asked(*words, "eval_data=photos", "eval_data.images=76")
    evaluated.serve(asked)
    return json.loads((asked.path / "progress.json").read_text())["notices"]


def test_fewer_images_than_neighbours_are_said(evaluated):
    (line,) = notices(evaluated, "protocol=knn", "knn.neighbours=[5,76,77,1000]")
    assert line == "k-NN: there are 76 images to learn from, and all vote for k = 77, 1000"


def test_fewer_images_than_a_batch_are_said(evaluated):
    line, few, *_ = notices(evaluated, "protocol=linear", "linear.epochs=1", "linear.batch=77")
    assert line == "linear: there are 76 images to learn from, fewer than a batch of 77"
    assert few == (
        "linear: 1 steps are few to learn from 76 images; give more linear.epochs, or a smaller linear.batch than 76, "
        "or use protocol=logistic, which has no steps"
    )


def test_few_steps_and_rates_that_tie_are_said_once_a_batch_was_cut_to_the_images(evaluated):
    """A batch of all images is one step an epoch, at whose end no rate is better than another."""
    few, tie = notices(evaluated, "protocol=linear", "linear.epochs=2", "linear.rates=[1e-9,1e-8,1e-7]")
    assert few.startswith("linear: 16 steps are few to learn from 76 images; give more linear.epochs, or use")
    assert tie.startswith("linear: 3 of 3 rates have the same top-1, ") and tie.endswith(": no rate is the best")


@pytest.mark.parametrize(("images", "batch"), [(10**6, 1024), (8192, 1024), (240, 30), (5, 1), (None, 1024)])
def test_a_batch_is_at_most_an_eighth_of_the_images_unless_asked_for(images, batch):
    assert Linear().batch_of(images) == batch
    assert Linear(batch=300).batch_of(images) == 300
    planned = Linear(epochs=3).planned(images)
    assert (planned.batch, planned.count) == (batch, images and 3 * (images // batch))
