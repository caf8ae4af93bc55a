"""Labels carried through clips: against the published procedure in plain float64, stopped, and on two ranks."""

import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag
from methods.data.sets.made_clips.reader import MadeClips
from methods.evals.alone import evaluate
from methods.evals.dense import mapper
from methods.evals.video.propagation import Propagation, of_patches, of_pixels
from methods.evals.video.similarity import contour, region
from methods.evals.video.spec import Video

SHORT = (
    "protocol=video",
    "eval_data=made/clips",
    "eval_data.clips=2",
    "eval_data.frames=4",
    "eval_data.side=48",
    "video.radius=2",
)


# -- the published procedure, one patch and one pixel at a time ------------------------------------------------------


def carried(frames, first, settings):
    """The labels [classes, h, w] of each frame but the first, of features [d, h, w], all float64."""
    d, h, w = frames[0].shape
    unit = [f / np.sqrt((f**2).sum(0)) for f in frames]
    labels = [first]
    for t in range(1, len(frames)):
        sources = [0, *range(max(1, t - settings.frames), t)]
        found = np.zeros_like(first)
        for row in range(h):
            for column in range(w):
                near = []
                for s in sources:
                    for r in range(max(0, row - settings.radius), min(h, row + settings.radius + 1)):
                        for c in range(max(0, column - settings.radius), min(w, column + settings.radius + 1)):
                            cosine = sum(unit[s][k, r, c] * unit[t][k, row, column] for k in range(d))
                            near.append((math.exp(cosine / settings.temperature), s, r, c))
                near.sort(reverse=True)
                kept = near[: settings.nearest]
                for weight, s, r, c in kept:
                    found[:, row, column] += weight / sum(each[0] for each in kept) * labels[s][:, r, c]
        labels.append(found)
    return labels[1:]


def contour_by_definition(found, truth):
    """F of two masks, with disks that are drawn pixel by pixel (Perazzi et al. 2016)."""

    def border(mask):
        height, width = mask.shape
        points = set()
        for y in range(height):
            for x in range(width):
                others = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
                if y == height - 1:
                    others = [(y, x + 1)]
                if x == width - 1:
                    others = [(y + 1, x)]
                inside = [o for o in others if o[0] < height and o[1] < width]
                if any(mask[y, x] != mask[o] for o in inside):
                    points.add((y, x))
        return points

    radius = math.ceil(0.008 * math.sqrt(found.shape[0] ** 2 + found.shape[1] ** 2))
    mine, theirs = border(found), border(truth)
    if not mine and not theirs:
        return 1.0
    if not mine or not theirs:
        return 0.0

    def matched(these, those):
        return sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in those) for y, x in these) / len(these)

    precision, recall = matched(mine, theirs), matched(theirs, mine)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize(("nearest", "last"), [(5, 7), (1, 2), (40, 1)])
def test_labels_are_those_of_the_published_procedure_in_float64(nearest, last):
    rng = np.random.default_rng(nearest)
    frames = [rng.normal(size=(3, 5, 6)) for _ in range(6)]
    first = np.eye(3)[rng.integers(3, size=(5, 6))].transpose(2, 0, 1)
    settings = Video(frames=last, nearest=nearest, radius=2)
    ours = Propagation(settings, torch.from_numpy(frames[0]), torch.from_numpy(first))
    for frame, expected in zip(frames[1:], carried(frames, first, settings), strict=True):
        found = ours.next(torch.from_numpy(frame)).numpy()
        assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)
        assert np.allclose(found.sum(0), 1)


def test_patches_are_labelled_in_parts_as_in_one(monkeypatch):
    rng = np.random.default_rng(0)
    frames = [torch.from_numpy(rng.normal(size=(3, 5, 6))) for _ in range(3)]
    whole, parts = (
        Propagation(Video(radius=2), frames[0], of_patches(np.eye(30, dtype=np.uint8), 1, (5, 6))) for _ in "ab"
    )
    expected = [whole.next(frame) for frame in frames[1:]]
    monkeypatch.setattr("methods.evals.video.propagation.CHUNK", 100)
    assert all(torch.allclose(parts.next(frame), each) for frame, each in zip(frames[1:], expected, strict=True))


@pytest.mark.parametrize("seed", range(6))
def test_region_and_contour_are_those_of_the_definition(seed):
    rng = np.random.default_rng(seed)
    truth, found = np.zeros((24, 30), bool), np.zeros((24, 30), bool)
    y, x = rng.integers(2, 10, 2)
    truth[y : y + 12, x : x + 9] = True
    found[y + seed : y + 14, x - 1 : x + 9 + seed] = True
    found[rng.random(found.shape) < 0.02] ^= True
    nowhere = np.zeros_like(truth)
    assert region(found, truth, nowhere) == (found & truth).sum() / (found | truth).sum()
    assert contour(found, truth, nowhere) == pytest.approx(contour_by_definition(found, truth), abs=1e-12)


def test_empty_masks_and_void_pixels_count_as_in_the_published_evaluation():
    nothing, thing = np.zeros((20, 20), bool), np.zeros((20, 20), bool)
    thing[5:15, 5:15] = True
    assert (region(nothing, nothing, nothing), contour(nothing, nothing, nothing)) == (1.0, 1.0)
    assert (region(nothing, thing, nothing), contour(nothing, thing, nothing)) == (0.0, 0.0)
    assert (region(thing, nothing, nothing), contour(thing, nothing, nothing)) == (0.0, 0.0)
    assert (region(thing, nothing, thing), contour(thing, nothing, thing)) == (1.0, 1.0)


def test_scores_are_those_of_the_procedure_written_down_on_clips_made_here(evaluated_vit):
    """From frames to the last printed decimal, beside the very features of the network."""
    found = evaluated_vit.scores(*SHORT)["video"]
    clips, network, settings = MadeClips(clips=2, frames=4, side=48), evaluated_vit.backbone, Video(radius=2)
    regions, contours = [], []
    for clip in clips.clips:
        numbers = range(clip.first, clip.last)
        pixels = [torch.from_numpy(np.array(clips.image(n)).transpose(2, 0, 1)) for n in numbers]
        with mapper("small_vit", network) as encode, torch.no_grad():
            frames = [encode(each[None])[0].double().numpy() for each in pixels]
        objects = int(clips.mask(clip.first).max())
        small = np.array(Image.fromarray(clips.mask(clip.first)).resize((12, 12), Image.Resampling.NEAREST))
        labels = carried(frames, np.eye(1 + objects)[small].transpose(2, 0, 1), settings)
        for number, each in list(zip(numbers, [None, *labels], strict=True))[1:-1]:
            large = torch.nn.functional.interpolate(torch.from_numpy(each)[None], scale_factor=4, mode="bilinear")[0]
            for channel in large:
                if channel.max() > 0:
                    channel -= channel.min()
                    channel /= channel.max()
            mine, truth, nowhere = large.argmax(0).numpy(), clips.mask(number), np.zeros((48, 48), bool)
            for thing in range(1, objects + 1):
                regions.append(((clip.name, thing), region(mine == thing, truth == thing, nowhere)))
                contours.append(((clip.name, thing), contour_by_definition(mine == thing, truth == thing)))
    j, f = (
        np.mean([np.mean([v for k, v in rows if k == key]) for key in {k for k, _ in rows}])
        for rows in (regions, contours)
    )
    assert (found["j_mean"], found["f_mean"]) == (round(100 * j, 2), round(100 * f, 2))
    assert found["j_and_f"] == round(50 * (j + f), 2) and 0 < found["j_mean"] < 100
    assert 0 <= found["f_recall"] <= 100


def test_masks_are_enlarged_class_by_class():
    labels = torch.tensor([[[0.9, 0.9], [0.9, 0.5]], [[0.1, 0.1], [0.1, 0.5]], [[0.0, 0.0], [0.0, 0.0]]])
    found = of_pixels(labels, 2)
    assert found.shape == (4, 4) and found[0, 0] == 0 and found[-1, -1] == 1 and 2 not in found


def evaluate_on_a_rank(world, folder):
    run = RunDir(folder)
    evaluate(run, world, Ledger(run.path, 1, f"rank{world.rank}"), StopFlag(), Heart(run))


def test_stopped_and_on_two_ranks_it_finds_what_it_finds_undisturbed_on_one(evaluated, ranks):
    asked = evaluated.asked(*SHORT, "video.pictures=2")
    alone = evaluated.serve(asked)["video"]
    strips = sorted((asked.path / "video").iterdir())
    assert [file.name for file in strips] == ["clip0000.png", "clip0001.png"]
    with Image.open(strips[0]) as strip:
        assert strip.size == (4 * (144 + 4) - 4, 2 * 144 + 4)
    shutil.rmtree(asked.path)
    asked, starts = evaluated.asked(*SHORT, "video.pictures=2"), 0
    while evaluated.stopped(asked, questions=5):
        starts += 1
        assert starts < 10
    assert starts == 1 and evaluated.serve(asked)["video"] == alone
    shutil.rmtree(asked.path)
    asked = evaluated.asked(*SHORT, "video.pictures=2")
    ranks(2, evaluate_on_a_rank, asked.path)
    (found,) = (event["scores"] for event in asked.history().all("eval"))
    assert found == alone


def test_what_has_no_clips_is_refused_with_what_has(evaluated):
    with pytest.raises(
        InputError,
        match=r"^protocol=video: it needs clips with masks, and photos has one label .* eval_data=davis or made/clips",
    ):
        evaluated.asked("protocol=video", "eval_data=photos")
