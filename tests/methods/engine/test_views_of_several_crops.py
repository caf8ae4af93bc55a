"""Multi-crop: what a worker makes of an image, and that it is the same wherever and whenever it is made."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from methods.augment import draws
from methods.augment.resize import decoded, resized
from methods.augment.spec import AUGMENTATIONS, MultiCropConfig
from methods.augment.stage import Photometrics
from methods.augment.views import MultiCropView
from methods.data.dataset import BrokenImage
from methods.data.loader import Crops, Request, batches
from methods.data.sampler import shares

CONFIG = MultiCropConfig(backbone="small_vgg", image_size=24, local_size=16, local_crops=3, augment="byol")
VIEW = MultiCropView.of(CONFIG, seed=7)
SAMPLES, EPOCH = 32, 5


class Memory:
    """`SAMPLES` images in memory, no two of one size; those in `broken` cannot be decoded."""

    classes, labels = None, None

    def __init__(self, channels=3, broken=()):
        self.channels, self._broken = channels, broken

    def __len__(self):
        return SAMPLES

    def name_of(self, index):
        return f"{index}.png"

    def image(self, index):
        if index in self._broken:
            raise BrokenImage(self.name_of(index), "it is broken")
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (40 + index, 60 - index, 3), np.uint8)
        return Image.fromarray(pixels).convert("RGB" if self.channels == 3 else "L")


def requests(order, size, first=0):
    """Batches of `size` samples of `order`, from batch `first` on."""
    steps = [order[i : i + size] for i in range(0, len(order), size)]
    return [Request(ids, EPOCH, {"ten": 10 * ids}) for ids in steps[first:]]


def made(requests, workers=0, **options):
    return list(batches(Memory(**options), VIEW, requests, workers=workers))


def by_sample(batches):
    """sample -> (pixels of each resolution, draws, what the stage makes of each resolution)."""
    stage, found = Photometrics(CONFIG), {}
    for batch in batches:
        images = [each.unflatten(0, (-1, len(batch.ids))) for each in stage(batch.images)]
        for row, sample in enumerate(batch.ids.tolist()):
            parts = *(each[row] for each in batch.images.pixels), batch.images.draws[row]
            found[sample] = (*parts, *(each[:, row] for each in images))
    return found


def assert_equal(ours, theirs):
    assert ours.keys() == theirs.keys()
    for sample, parts in ours.items():
        assert all(torch.equal(a, b) for a, b in zip(parts, theirs[sample], strict=True)), sample


ORDER = np.random.default_rng(1).permutation(SAMPLES)


@pytest.fixture(scope="module")
def alone():
    """Everything, in one process."""
    return by_sample(made(requests(ORDER, 8)))


def test_views_have_their_shapes_and_lie_channels_last(alone):
    (batch, *_) = made(requests(ORDER, 8))
    whole, local = batch.images.pixels
    assert whole.shape == (8, 2, 3, 24, 24) and local.shape == (8, 3, 3, 16, 16)
    assert whole.dtype == local.dtype == torch.uint8 and batch.images.draws.shape == (8, 5, draws.COLUMNS)
    assert whole.permute(0, 1, 3, 4, 2).is_contiguous() and batch.images.draws.dtype == torch.float32
    assert len(batch.images) == 8 and torch.equal(batch.columns["ten"], 10 * batch.ids)
    assert len(alone) == SAMPLES


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_change_no_pixel(alone, workers):
    answers = made(requests(ORDER, 8), workers)
    assert torch.cat([batch.ids for batch in answers]).tolist() == ORDER.tolist()
    assert_equal(by_sample(answers), alone)


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_change_no_pixel(alone, ranks):
    """Each rank asks for its part of every global batch, as `Job.batches_in_turn` does."""
    share, steps = 8 // ranks, range(len(ORDER) // 8)
    ids = [
        np.concatenate(list(shares(ORDER.__getitem__, steps, rank=r, world_size=ranks, accumulation=1, per_rank=share)))
        for r in range(ranks)
    ]
    parts = [made(requests(own, share)) for own in ids]
    assert_equal(by_sample([batch for part in parts for batch in part]), alone)


def test_going_on_in_the_middle_of_an_epoch_changes_no_pixel(alone):
    rest = by_sample(made(requests(ORDER, 8, first=2), workers=2))
    assert set(rest) == set(ORDER[16:].tolist())
    assert_equal(rest, {sample: alone[sample] for sample in rest})


def test_seed_epoch_sample_and_view_each_make_another_view(alone):
    picture = Memory().image(3)
    other = MultiCropView.of(CONFIG, seed=8)
    places = ((VIEW, 3, 5), (other, 3, 5), (VIEW, 4, 5), (VIEW, 3, 6))
    rows = [view.draws(picture, sample, epoch)[1][:, draws.BRIGHTNESS : draws.GREY] for view, sample, epoch in places]
    jitters = [tuple(row.tolist()) for each in rows for row in each if row.tolist() != [1, 1, 1, 0]]
    assert len(jitters) > 8 and len(set(jitters)) == len(jitters)


def test_a_view_does_not_depend_on_how_many_others_there_are():
    fewer = MultiCropView.of(
        MultiCropConfig(backbone="small_vgg", image_size=24, local_crops=0, augment="byol"), seed=7
    )
    image = Memory().image(9)
    whole, rows = fewer(image, 9, EPOCH)
    assert np.array_equal(whole, VIEW(image, 9, EPOCH)[0]) and np.array_equal(rows, VIEW(image, 9, EPOCH)[2][:2])


def test_crops_are_the_boxes_that_were_drawn():
    image = Memory().image(11)
    boxes, rows = VIEW.draws(image, 11, EPOCH)
    whole, local, drawn = VIEW(image, 11, EPOCH)
    assert [len(each) for each in boxes] == [2, 3] and np.array_equal(rows, drawn)
    for group, crops, size in zip(boxes, (whole, local), (24, 16), strict=True):
        assert np.array_equal(resized(decoded(image), group, size, "bicubic"), crops)


def test_global_views_take_turns_with_the_recipes_and_local_views_share_one():
    recipe = AUGMENTATIONS["byol"]
    view = MultiCropView.of(
        MultiCropConfig(backbone="small_vgg", augment="byol", global_crops=3, local_crops=2), seed=0
    )
    whole, local = (each.recipes for each in view.resolutions)
    assert whole == (recipe.views[0], recipe.views[1], recipe.views[0]) and local == (recipe.local,) * 2


def test_draws_are_pinned_so_that_old_runs_resume_on_new_code():
    (whole, local), rows = VIEW.draws(Image.new("RGB", (500, 375)), 2, 1)
    assert whole[0] == (23, 2, 215, 192) and local[2] == (173, 160, 149, 141)
    np.testing.assert_allclose(rows[1], [0, 13, 1.2422882, 1.1509781, 1.0275123, -0.02185527, 0, 0, 0], rtol=1e-6)


def test_a_view_survives_pickling():
    image = Memory().image(2)
    for ours, theirs in zip(pickle.loads(pickle.dumps(VIEW))(image, 2, 1), VIEW(image, 2, 1), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_grey_images_have_grey_crops(workers):
    for batch in made(requests(ORDER, 8), workers, channels=1):
        assert [each.shape[2] for each in batch.images.pixels] == [1, 1]
        assert [each.shape[1] for each in Photometrics(CONFIG)(batch.images)] == [1, 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_crops_and_draws_of_a_good_image_stand_in_for_a_broken_one(alone, workers):
    (batch,) = made([Request(np.array([4, 0, 1, 2]), EPOCH, {})], workers, broken={0, 2})
    assert batch.ids.tolist() == [4, 4, 1, 1] and [sample for sample, _ in batch.broken] == [0, 2]
    assert_equal(by_sample([batch]), {sample: alone[sample] for sample in (4, 1)})
    assert torch.equal(batch.images.draws[0], batch.images.draws[1])
    with pytest.raises(BrokenImage, match="all 2 images of a batch"):
        made([Request(np.array([0, 2]), EPOCH, {})], workers, broken={0, 2})


def test_broken_images_are_left_out_where_that_is_asked_for(alone):
    wanted = [Request(np.array(ids), EPOCH, {}) for ids in ([4, 0, 1], [0, 2])]
    some, none = batches(Memory(broken={0, 2}), VIEW, wanted, replace_broken=False)
    assert_equal(by_sample([some]), {sample: alone[sample] for sample in (4, 1)})
    assert [tuple(each.shape) for each in none.images.pixels] == [(0, 2, 3, 24, 24), (0, 3, 3, 16, 16)]
    assert none.images.draws.shape == (0, 5, draws.COLUMNS) and len(none.images) == 0


def test_a_grey_image_among_coloured_ones_is_refused():
    class Mixed(Memory):
        def image(self, index):
            return super().image(index).convert("L" if index == 1 else "RGB")

    with pytest.raises(ValueError, match=r"sample 1: its view is \(2, 1, 24, 24\), those before it \(2, 3, 24, 24\)"):
        list(batches(Mixed(), VIEW, [Request(np.array([0, 1]), 0, {})]))


def test_crops_move_while_their_draws_stay():
    (batch, *_) = made(requests(ORDER, 8))
    moved = batch.images.to(torch.device("meta"), non_blocking=True)
    assert all(each.is_meta for each in moved.pixels) and moved.draws is batch.images.draws
    assert isinstance(moved, Crops) and torch.equal(batch.images[2:4].draws, batch.images.draws[2:4])


def test_images_of_another_mode_are_refused_by_name():
    with pytest.raises(ValueError, match="mode='CMYK'"):
        VIEW(Memory().image(0).convert("CMYK"), 0, 0)
