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
from methods.backbones.small_vit.network import TransformerBlock
from methods.data.sets.made_clips.reader import MadeClips
from methods.evals.alone import evaluate
from methods.evals.dense import mapper
from methods.evals.video import protocol
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


def bilinear(plane, height, width):
    """float64 [H, W] -> [height, width], from the four pixels around each place, the border repeated."""
    rows, columns = plane.shape
    found = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = max(0.0, (y + 0.5) * rows / height - 0.5)
            u = max(0.0, (x + 0.5) * columns / width - 0.5)
            top, left = math.floor(v), math.floor(u)
            low, right, a, b = min(top + 1, rows - 1), min(left + 1, columns - 1), v - top, u - left
            above = (1 - b) * plane[top, left] + b * plane[top, right]
            found[y, x] = (1 - a) * above + a * ((1 - b) * plane[low, left] + b * plane[low, right])
    return found


def nearest(mask, height, width):
    """PIL's, as in the released script: where a centre lies between two pixels its rounding says which is meant."""
    return np.array(Image.fromarray(mask.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST))


@pytest.mark.parametrize("side", [48, 32])
def test_scores_are_those_of_the_procedure_written_down_on_clips_made_here(evaluated_vit, side):
    """From frames to the last printed decimal, beside the very features of the network; also of smaller frames."""
    found = evaluated_vit.scores(*SHORT, f"video.side={side}")["video"]
    clips, network, settings = MadeClips(clips=2, frames=4, side=48), evaluated_vit.backbone, Video(radius=2)
    regions, contours = {}, {}
    for clip in clips.clips:
        frames, numbers = [], range(clip.first, clip.last)
        for number in numbers:
            planes = np.array(clips.image(number)).transpose(2, 0, 1).astype(np.float64)
            pixels = np.rint([bilinear(plane, side, side) for plane in planes]).astype(np.uint8)
            with mapper("small_vit", network) as encode, torch.no_grad():
                frames.append(encode(torch.from_numpy(pixels)[None])[0].double().numpy())
        objects, grid = int(clips.mask(clip.first).max()), side // 4
        small = nearest(clips.mask(clip.first), grid, grid)
        labels = carried(frames, np.eye(1 + objects)[small].transpose(2, 0, 1), settings)
        for number, each in list(zip(numbers, [None, *labels], strict=True))[1:-1]:
            large = []
            for channel in each:
                channel = bilinear(channel, side, side)
                if channel.max() > 0:
                    channel = channel - channel.min()
                    channel = channel / channel.max()
                large.append(channel)
            mine, truth = nearest(np.argmax(large, axis=0), 48, 48), clips.mask(number)
            for thing in range(1, objects + 1):
                a, b = mine == thing, truth == thing
                regions.setdefault((clip.name, thing), []).append((a & b).sum() / (a | b).sum() if (a | b).any() else 1)
                contours.setdefault((clip.name, thing), []).append(contour_by_definition(a, b))
    j, f = (np.mean([np.mean(each) for each in values.values()]) for values in (regions, contours))
    assert (found["j_mean"], found["f_mean"]) == (round(100 * j, 2), round(100 * f, 2))
    assert found["j_and_f"] == round(50 * (j + f), 2) and 0 < found["j_mean"] < 100
    recalls = (np.mean([np.mean(np.array(each) > 0.5) for each in kind.values()]) for kind in (regions, contours))
    assert (found["j_recall"], found["f_recall"]) == tuple(round(100 * each, 2) for each in recalls)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((854, 480), (832, 480)), ((480, 854), (480, 832)), ((1920, 1080), (832, 480)), ((95, 64), (80, 64))],
)
def test_frames_of_davis_have_the_published_size(size, expected):
    found = protocol._resized(Image.new("RGB", size, (9, 20, 31)), 480, 16)
    assert tuple(protocol._resized(Image.new("RGB", (854, 480)), 480, 5).shape) == (3, 480, 830)  # of whole patches
    assert tuple(found.shape) == (3, *expected[::-1]) and found.dtype == torch.uint8
    assert found.amin((1, 2)).tolist() == found.amax((1, 2)).tolist() == [9, 20, 31]


def test_labels_are_carried_in_float32_whatever_the_precision_of_the_run(evaluated_in, tmp_path, monkeypatch):
    seen = []

    def looked_at(self, features):
        found = carry(self, features)
        seen.append((torch.is_autocast_enabled("cpu"), features.dtype, found.dtype))
        return found

    carry, block, blocks = Propagation.next, TransformerBlock.forward, []
    monkeypatch.setattr(Propagation, "next", looked_at)
    run = evaluated_in(tmp_path, "small_vit", "method.precision=bf16")

    def within(self, tokens):
        blocks.append(torch.is_autocast_enabled("cpu"))
        return block(self, tokens)

    monkeypatch.setattr(TransformerBlock, "forward", within)
    run.scores(*SHORT)
    assert len(seen) == 6 and set(seen) == {(False, torch.float32, torch.float32)}
    assert set(blocks) == {True}


def test_a_clip_without_an_object_counts_nothing_also_when_it_was_kept(evaluated, monkeypatch):
    def none_in_the_first(self, index):
        return mask(self, index) * (index >= 4)

    whole, mask = evaluated.scores(*SHORT, "eval_data.clips=1", "eval_data.seed=3")["video"], MadeClips.mask
    assert 0 < whole["j_mean"] < 100
    monkeypatch.setattr(MadeClips, "mask", none_in_the_first)
    asked = evaluated.asked(*SHORT)
    assert evaluated.stopped(asked, questions=6)
    found = evaluated.serve(asked)["video"]
    assert [event for event in asked.history().all("work") if event.get("clips_restored") == 1]
    monkeypatch.setattr(protocol, "region", lambda *_: 0.25)
    shutil.rmtree(asked.path)
    assert evaluated.scores(*SHORT)["video"]["j_mean"] == 25.0 != found["j_mean"]
    asked = evaluated.asked(*SHORT, "eval_data.clips=1")
    with pytest.raises(InputError, match=r"^eval_data: no first frame shows an object"):
        evaluated.serve(asked)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("mask", "mask of clip0000/00002: 48 x 40 pixels, and the frame 48 x 48;"),
        ("image", "clip0000/00002: 48 x 40 pixels, and the clip's first has 48 x 48;"),
    ],
)
def test_a_frame_or_a_mask_of_another_size_is_refused_by_name(evaluated, monkeypatch, kind, said):
    right = getattr(MadeClips, kind)
    cut = {
        "mask": lambda self, n: right(self, n)[: 40 if n == 2 else 48],
        "image": lambda self, n: right(self, n).crop((0, 0, 48, 40 if n == 2 else 48)),
    }
    monkeypatch.setattr(MadeClips, kind, cut[kind])
    with pytest.raises(InputError) as found:
        evaluated.scores(*SHORT, f"eval_data.seed={5 if kind == 'mask' else 6}")
    assert said in str(found.value) and "\n" not in str(found.value)


def test_a_size_that_is_no_whole_number_of_patches_is_refused(evaluated):
    with pytest.raises(InputError, match=r"^video.side=100: .* 32 pixels at a time; give a multiple of 32"):
        evaluated.asked(*SHORT, "video.side=100")


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
        assert strip.size == (4 * (144 + 4) - 4, 2 * (20 + 144))
        captions = np.asarray(strip.convert("L"))[[*range(20), *range(164, 184)]].reshape(2, 20, -1)
        assert captions.max() == 255 and all((row < 100).any() for row in captions), "each row says what it is"
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
