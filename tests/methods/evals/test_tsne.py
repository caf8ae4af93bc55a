"""The map of the classes: means and the nearest image of each, scikit-learn's t-SNE of them, and boxes side by side."""

import shutil
import threading
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.data.dataset import BrokenImage
from methods.evals.alone import evaluate
from methods.evals.subject import Subject
from methods.evals.tsne import protocol
from methods.evals.tsne.layout import apart, overlaps
from methods.evals.tsne.picture import WIDEST, picture
from methods.evals.tsne.protocol import mapped, means_of, perplexity
from methods.evals.tsne.spec import Tsne

DATA = "eval_data=photos", "eval_data.images=76"
QUICK = "tsne.iterations=300"


def crowds(classes=40, width=48, seed=0):
    rng = np.random.default_rng(seed)
    middles = 6 * rng.normal(size=(4, width))
    return (middles[np.arange(classes) % 4] + rng.normal(size=(classes, width))).astype(np.float32)


def test_the_points_are_scikit_learn_s_of_thirty_components_at_the_thesis_settings():
    means = crowds(70)
    reduced = PCA(30, svd_solver="full").fit_transform(means.astype(np.float64))
    theirs = TSNE(perplexity=20, learning_rate=200, max_iter=5000, init="pca", random_state=3).fit_transform(reduced)
    ours = mapped(means, Tsne(), 3)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * abs(theirs).max())
    assert np.array_equal(ours, mapped(means, Tsne(), 3))


def test_few_classes_have_fewer_neighbours_and_components():
    assert [perplexity(Tsne(), classes) for classes in (61, 62, 19)] == [20, 20, 6]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        points = mapped(crowds(5, 3), Tsne(iterations=300), 0)
    assert points.shape == (5, 2) and np.isfinite(points).all()


def test_what_is_near_by_the_features_is_near_on_the_map():
    means = crowds()
    points = mapped(means, Tsne(), 0)
    assert trustworthiness(means, points, n_neighbors=5) > 0.9
    distance = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(40, np.inf))
    assert (distance.argmin(1) % 4 == np.arange(40) % 4).all()


def test_a_class_has_the_mean_of_its_features_and_the_image_nearest_to_it(evaluated, monkeypatch):
    seen = {}

    def asked(subject, split):
        features, labels = subject.features(split)
        features = torch.randn(features.shape, generator=torch.Generator().manual_seed(0))
        monkeypatch.setattr(Subject, "features", lambda self, split: (features, labels))
        seen.update(features=features, labels=labels, numbers=subject.numbers(split), found=means_of(subject, split))
        return seen["found"]

    monkeypatch.setattr(protocol, "means_of", asked)
    evaluated.scores("protocol=tsne", QUICK, *DATA)
    features, labels, found = seen["features"].double(), seen["labels"], seen["found"]
    assert found.label.tolist() == labels.unique().tolist() and found.images.tolist() == labels.bincount().tolist()
    for row, label in enumerate(found.label):
        of_class = features[labels == label]
        torch.testing.assert_close(torch.from_numpy(found.mean[row]).double(), of_class.mean(0), rtol=1e-5, atol=1e-6)
        nearest = torch.nn.functional.cosine_similarity(of_class, of_class.mean(0)[None]).argmax()
        assert seen["numbers"][(labels == label).numpy()][nearest] == found.typical[row]


def test_the_map_and_its_numbers_lie_in_the_evaluation(evaluated):
    asked = evaluated.asked("protocol=tsne", QUICK, *DATA)
    scores = evaluated.serve(asked)["tsne"]
    with np.load(asked.path / "tsne" / "classes.npz", allow_pickle=False) as kept:
        names, images, means, points = (kept[name] for name in ("names", "images", "means", "points"))
    assert scores["classes"] == len(names) == len(images) == len(means) == len(points) == 19
    assert means.dtype == np.float32 and means.shape[1] == evaluated.backbone.feature_dim
    assert scores["trustworthiness"] == pytest.approx(trustworthiness(means.astype(float), points), abs=1e-4)
    with Image.open(asked.path / "tsne" / "classes.png") as drawn:
        assert 300 <= max(drawn.size) <= 1700 and len(drawn.convert("RGB").getcolors(10**6)) > 300


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def test_stopped_and_on_two_ranks_it_is_what_it_is_undisturbed_on_one(evaluated, ranks):
    wanted = "protocol=tsne", QUICK, *DATA, "tsne.split=train"
    asked = evaluated.asked(*wanted)
    undisturbed, files = evaluated.serve(asked), drawn(asked)
    shutil.rmtree(asked.path)
    again = evaluated.asked(*wanted)
    assert evaluated.stopped(again, 2)
    assert evaluated.serve(again) == undisturbed and drawn(again) == files
    shutil.rmtree(asked.path)
    asked = evaluated.asked(*wanted)
    ranks(2, evaluate_on_a_rank, asked.path)
    assert [event["scores"] for event in asked.history().all("eval")] == [undisturbed["tsne"]]
    assert drawn(asked) == files


def drawn(asked):
    """What lies in the evaluation, bytes of the picture and arrays."""
    folder = asked.path / "tsne"
    with np.load(folder / "classes.npz") as kept:
        return (folder / "classes.png").read_bytes(), {name: kept[name].tolist() for name in kept.files}


def test_a_stop_does_not_wait_for_scikit_learn(evaluated, monkeypatch):
    let, began = threading.Event(), threading.Event()

    def endless(means, settings, seed):
        began.set()
        let.wait(60)

    monkeypatch.setattr(protocol, "mapped", endless)
    monkeypatch.setattr(protocol, "WAIT_S", 0.02)
    try:
        assert evaluated.stopped(evaluated.asked("protocol=tsne", *DATA, "tsne.rate=100"), 12)
        assert began.is_set() and not let.is_set()
    finally:
        let.set()


def test_what_fails_in_the_thread_fails_the_evaluation(evaluated, monkeypatch):
    def broken(means, settings, seed):
        raise ValueError("no such map")

    monkeypatch.setattr(protocol, "mapped", broken)
    with pytest.raises(ValueError, match="no such map"):
        evaluated.scores("protocol=tsne", *DATA, "tsne.rate=50")


def test_two_classes_make_no_map(evaluated, tmp_path):
    for split in ("train", "test"):
        for number in range(4):
            (folder := tmp_path / split / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(folder / f"{number}.png")
    with pytest.raises(InputError, match="its test split shows 2 classes, and a map takes 5"):
        evaluated.scores("protocol=tsne", "eval_data=image_folder", f"eval_data.path={tmp_path}")


@pytest.mark.parametrize(("shape", "count"), [((30, 30), 300), ((70, 12), 400), ((90, 110), 40)])
def test_boxes_of_one_crowd_lie_side_by_side_in_the_picture_and_near_their_points(shape, count):
    rng = np.random.default_rng(0)
    points = 500 + 25 * rng.normal(size=(count, 2))
    sizes = np.array(shape) * rng.uniform(0.7, 1, size=(count, 2))
    centres = apart(points, sizes, (1000, 1000), gap=3)
    assert overlaps(points, sizes) > count and overlaps(centres, sizes) == overlaps(centres, sizes + 2) == 0
    assert (centres - sizes / 2 >= 0).all() and (centres + sizes / 2 <= 1000).all()
    # A disc or a rectangle of all boxes around the crowd, with as much again for the room between them.
    assert abs(centres - points).max() < 2 * (sizes + 3).prod(axis=1).sum() ** 0.5 + 100
    assert np.array_equal(centres, apart(points, sizes, (1000, 1000), gap=3))


def test_boxes_that_have_room_stay_and_those_that_find_none_do_not_move():
    points, sizes = np.array([[20.0, 30.0], [80.0, 30.0]]), np.full((2, 2), 16.0)
    np.testing.assert_allclose(apart(points, sizes, (100, 60), gap=0), points, atol=2)
    crowded = apart(np.full((3, 2), 20.0), np.full((3, 2), 36.0), (40, 40), gap=0)
    assert overlaps(crowded, np.full((3, 2), 36.0)) == 3 and abs(crowded - 20).max() <= 2


class Colours:
    """Images of one colour each; one of them is broken."""

    def image(self, index):
        if index == 2:
            raise BrokenImage("2.png", "is empty")
        return Image.new("RGB", (60, 30), (index % 256, 200, 50))


@pytest.mark.parametrize("show", ["images", "names"])
@pytest.mark.parametrize("count", [5, 60, 500, 2500])
def test_every_class_is_on_a_picture_that_a_screen_can_show(show, count):
    points = np.random.default_rng(1).normal(size=(count, 2))
    names = [f"a_name_of_{number}\n" + 30 * "x" for number in range(count)]
    made = picture(points, names, range(count), Colours(), show=show, foot="60 classes")
    assert 300 <= max(made.size) <= WIDEST + 30 and min(made.size) >= 0.5 * max(made.size)
    if show == "images" and count <= 500:
        seen = {colour for _, colour in made.getcolors(2**20)}
        assert seen >= {(number % 256, 200, 50) for number in range(count) if number != 2}
    elif count <= 500:  # letters all over
        dark = np.asarray(made.convert("L")) < 128
        assert dark.sum() > 20 * count


@pytest.mark.parametrize(
    "wrong", ["tsne.show=dots", "tsne.split=val", "tsne.iterations=100", "tsne.perplexity=0.5", "tsne.components=0"]
)
def test_what_t_sne_does_not_have_is_refused_when_it_is_asked_for(evaluated, wrong):
    with pytest.raises(InputError, match=wrong.partition("=")[0].replace(".", r"\.")):
        evaluated.asked("protocol=tsne", wrong)
