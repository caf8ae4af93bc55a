"""The graph of nearest neighbours against its definition in exact fractions, and against scikit-learn."""

import shutil
from fractions import Fraction
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.neighbors import NearestNeighbors

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.data.photos import Photos
from methods.evals.alone import evaluate
from methods.evals.graph import nearest, protocol
from methods.evals.graph.nearest import Nearest
from methods.evals.graph.picture import OTHER, SAME, _fitting, picture
from methods.evals.graph.spec import NeighbourGraph
from methods.evals.subject import Subject

ALONE = World(0, 1, torch.device("cpu"))
K = 4
SMALL = ("protocol=graph", "eval_data=photos", "eval_data.images=152")


def subject(world=ALONE):
    """What knows of the ranks, and of nothing else."""
    return SimpleNamespace(job=SimpleNamespace(world=world), sum=lambda x: Subject.sum(subject(world), x))


def made(count=70):
    """Features with many duplicates, ties and zeros, whose cosines are roots of fractions: int64 [count, 3]."""
    return np.random.default_rng(0).integers(-1, 3, size=(count, 3))


def by_definition(rows, k):
    """The nearest others of each row, by cosine; of those at one distance the first."""

    def closeness(a, b):  # the cosine's square with its sign, which is in the same order
        product, lengths = int(a @ b), int(a @ a) * int(b @ b)
        return Fraction(product * abs(product), lengths) if lengths else Fraction(0)

    return [
        sorted((j for j in range(len(rows)) if j != i), key=lambda j: (-closeness(row, rows[j]), j))[:k]
        for i, row in enumerate(rows)
    ]


def of_all(world, rows, parts=1):
    """Neighbours of every row, of which `world` has blocks; the last rank has none of them where there are three."""
    cuts = {1: [0, 70], 2: [0, 23, 70], 3: [0, 2, 70, 70]}[world.size]
    block = torch.from_numpy(rows[cuts[world.rank] : cuts[world.rank + 1]]).float()
    graph = Nearest(subject(world), block, K)
    found = [graph.of(positions) for positions in torch.arange(len(rows)).chunk(parts)]
    return torch.cat(found).tolist() if world.is_main else found


def test_ties_and_duplicates_fall_to_the_image_that_comes_first(monkeypatch):
    rows = made()
    expected = by_definition(rows, K)
    assert of_all(ALONE, rows) == expected
    assert len({tuple(row) for row in rows.tolist()}) < len(rows) and not rows.any(axis=1).all()
    # Lengths do not count, and nor do the parts in which images are asked about and looked through.
    monkeypatch.setattr(nearest, "ROWS", 11)
    assert of_all(ALONE, rows * np.random.default_rng(1).integers(1, 9, size=(70, 1)), parts=6) == expected


def test_neighbours_are_the_same_on_any_number_of_ranks(ranks):
    expected = by_definition(made(), K)
    for found in ranks((2, 3), of_all, made(), 3).values():
        assert found[0] == expected
        assert all(part is None for rank in found[1:] for part in rank)


@pytest.mark.parametrize(("count", "scale"), [(300, 1.0), (300, 1e-25), (7, 1e25)])
def test_neighbours_are_what_scikit_learn_finds(count, scale):
    rows = np.random.default_rng(2).normal(size=(count, 16)).astype(np.float32) * np.float32(scale)
    found = Nearest(subject(), torch.from_numpy(rows), 6).of(torch.arange(count))
    theirs = NearestNeighbors(n_neighbors=6, metric="cosine", algorithm="brute").fit(rows / np.float64(scale))
    np.testing.assert_array_equal(found.numpy(), theirs.kneighbors(return_distance=False))


def test_chance_is_the_share_of_pairs_of_one_class():
    labels = torch.tensor([0, 0, 0, 2, 2, 5])
    pairs = [bool(a == b) for a, b in permutations(labels, 2)]
    assert protocol.chance(labels) == pytest.approx(sum(pairs) / len(pairs))


def test_features_of_a_run_are_joined_as_scikit_learn_joins_them(evaluated, monkeypatch):
    seen = []
    monkeypatch.setattr(protocol, "Nearest", lambda *given: seen.append(given[1]) or Nearest(*given))
    for split, labels in (("train", np.arange(152) % 19), ("test", Photos("test", images=152).labels)):
        scores = evaluated.scores(*SMALL, f"graph.split={split}", "graph.neighbours=3")["graph"]
        rows = seen.pop().double()
        theirs = NearestNeighbors(n_neighbors=3).fit(torch.nn.functional.normalize(rows))
        same = labels[theirs.kneighbors(return_distance=False)] == labels[:, None]
        assert scores["within"] == pytest.approx(100 * same.mean(), abs=0.006)
        assert scores["within"] > scores["chance"] > 0


def test_a_graph_of_all_pairs_is_at_chance(evaluated):
    asked = evaluated.asked(*SMALL, "graph.neighbours=1000")
    scores = evaluated.serve(asked)["graph"]
    assert scores == {"within": round(100 * 7 / 151, 2), "chance": round(100 * 7 / 151, 2)}
    assert "there are 152 images, and each is joined to the 151 others" in (asked.path / "progress.json").read_text()


def test_one_image_is_no_graph():
    spec = SimpleNamespace(eval_data=SimpleNamespace(name="image_folder"), data=None)
    one = SimpleNamespace(
        job=SimpleNamespace(world=ALONE, spec=spec), features=lambda split: (torch.ones(1, 3), torch.zeros(1).long())
    )
    with pytest.raises(InputError, match="a graph takes two images"):
        protocol.score(one, NeighbourGraph())


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def test_it_is_the_same_on_two_ranks_and_when_it_was_stopped(evaluated, ranks, monkeypatch):
    wanted = (*SMALL, "graph.neighbours=2", "graph.pictures=3")
    asked = evaluated.asked(*wanted)
    undisturbed = evaluated.serve(asked)["graph"]
    drawn = (asked.path / "graph" / "neighbours.png").read_bytes()
    shutil.rmtree(asked.path)
    asked = evaluated.asked(*wanted)
    ranks(2, evaluate_on_a_rank, asked.path)
    assert [event["scores"] for event in asked.history().all("eval")] == [undisturbed]
    assert (asked.path / "graph" / "neighbours.png").read_bytes() == drawn
    shutil.rmtree(asked.path)
    monkeypatch.setattr(protocol, "QUERIES", 10)
    asked = evaluated.asked(*wanted)
    of, firsts = Nearest.of, []
    monkeypatch.setattr(Nearest, "of", lambda self, wanted: firsts.append(int(wanted[0])) or of(self, wanted))
    while len(firsts) < 8:
        assert evaluated.stopped(asked, 12)
    assert len(firsts) < 16 and evaluated.serve(asked)["graph"] == undisturbed
    assert firsts[:-1] == [*range(0, 152, 10)]  # none twice; the last are those of the picture


def test_a_neighbour_of_the_class_of_its_image_has_another_frame_than_one_of_another():
    dataset = Photos("train", images=76)
    dataset.classes = ("caf\udce9", *dataset.classes[1:])  # as Latin-1 on a disk of UTF-8
    shown = np.asarray(picture(dataset, [(0, np.array([19, 1])), (5, np.array([6, 24]))]))
    frames = [tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in (SAME, OTHER)]
    columns = [np.flatnonzero((shown == frame).all(axis=2).any(axis=0)) for frame in frames]
    same, other = ((shown == frame).all(axis=2) for frame in frames)
    assert same.sum() == other.sum() > 0 and len(columns[0]) == len(columns[1])
    top, bottom = (half.nonzero()[1].mean() for half in np.array_split(same, 2))
    assert top < bottom  # of the first image the nearest is of its class, of the other the second
    assert Image.fromarray(shown).mode == "RGB"


def test_a_class_whose_name_is_too_long_for_a_column_is_cut_with_a_sign():
    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    cut = _fitting("motorcycle_left", draw)
    assert _fitting("motor", draw) == "motor" and cut.endswith("\u2026") and "motorcycle_left".startswith(cut[:-1])
    one_more = "motorcycle_left"[: len(cut)] + "\u2026"
    assert draw.textlength(cut, font_size=11) <= 70 < draw.textlength(one_more, font_size=11)
