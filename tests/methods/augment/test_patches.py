"""Patches of an image (Kolesnikov et al., supplement, Section 1): where they lie, their colours, and how they are
standardised. On several ranks: tests/methods/engine/test_batches_in_turn_over_ranks.py."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from launcher.errors import InputError
from launcher.spec.runspec import freeze
from methods.augment import patches
from methods.augment.operators import standardise
from methods.augment.patches import PatchesConfig
from methods.augment.views import PatchesView

PAPER = PatchesView.of(PatchesConfig(backbone="small_vgg"), seed=7)
SMALL = PatchesView(seed=7, resize=31, grid=3, cell=9, size=6, grey=0.5)


def picture(width=50, height=40, mode="RGB", seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).convert(mode)


def where(side):
    """An RGB image of `side` pixels squared, each of which says where it is: (column, row, 0)."""
    rows, columns = np.indices((side, side))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], 2).astype(np.uint8))


def test_the_papers_patches_are_nine_of_64_pixels_whatever_the_image():
    for width, height, mode in ((500, 375, "RGB"), (32, 200, "RGB"), (292, 292, "L")):
        made = PAPER(picture(width, height, mode), 3, 0)
        assert made.shape == (9, 1 if mode == "L" else 3, 64, 64) and made.dtype == np.uint8
        assert made.transpose(0, 2, 3, 1).flags.c_contiguous and made.flags.writeable


def test_a_patch_is_cut_out_of_its_cell_of_one_crop_and_cells_go_row_by_row():
    plain = PatchesView(seed=7, resize=31, grid=3, cell=9, size=6, grey=0.0)
    crops, within = set(), set()
    for sample in range(400):
        made = plain(where(31), sample, 0)  # of the size that it is resized to: nothing is computed
        lefts, tops = made[:, 0, 0, 0].astype(int), made[:, 1, 0, 0].astype(int)
        assert np.array_equal(made[:, 0], lefts[:, None, None] + np.broadcast_to(np.arange(6), (9, 6, 6)))
        assert np.array_equal(made[:, 1], tops[:, None, None] + np.broadcast_to(np.arange(6)[:, None], (9, 6, 6)))
        corners, _ = plain.draws(sample, 0)
        assert np.array_equal(corners, np.stack([lefts, tops], 1))
        inner = corners - 9 * np.array([(v % 3, v // 3) for v in range(9)])  # crop, from 0 to 4, and place, 0 to 3
        low, high = inner.max(0) - 3, inner.min(0)  # where the crop can be
        assert (np.maximum(low, 0) <= np.minimum(high, 4)).all(), "no crop has all these patches in its cells"
        crops |= {tuple(corner) for corner in inner.tolist()}
        within |= {tuple(pair) for pair in (inner - inner.min(0)).tolist()}
    assert crops == {(x, y) for x in range(8) for y in range(8)}, "some places are never drawn, or such as cannot be"
    assert within == {(x, y) for x in range(4) for y in range(4)}


def test_an_image_is_resized_as_a_whole_without_keeping_its_shape():
    """Against PIL, whose filter is the same; its bytes may be a level apart."""
    image = picture(120, 40)
    corners, _ = SMALL.draws(5, 1)
    square = np.asarray(image.resize((31, 31), Image.Resampling.BILINEAR)).transpose(2, 0, 1).astype(int)
    expected = np.stack([square[:, y : y + 6, x : x + 6] for x, y in corners.tolist()])
    plain = PatchesView(seed=7, resize=31, grid=3, cell=9, size=6, grey=0.0)
    assert np.abs(plain(image, 5, 1) - expected).max() <= 1


def test_grey_is_the_mean_of_the_colours_of_the_whole_image_as_often_as_it_should():
    plain = PatchesView(seed=7, resize=31, grid=3, cell=9, size=6, grey=0.0)
    image, count = picture(), 0
    for sample in range(300):
        made, coloured = SMALL(image, sample, 2), plain(image, sample, 2).astype(float)
        if SMALL.draws(sample, 2)[1]:
            count += 1
            coloured[:] = np.rint(coloured.mean(1, keepdims=True))
        assert np.array_equal(made, coloured)
    assert 120 < count < 180  # 150, and 8.7 are a deviation
    assert not any(plain.draws(sample, 2)[1] for sample in range(300))
    grey = picture(mode="L")
    assert all(np.array_equal(SMALL(grey, sample, 2), plain(grey, sample, 2)) for sample in range(9))


def test_patches_are_a_function_of_seed_epoch_and_sample():
    image = picture()
    told = [
        PatchesView(seed, 31, 3, 9, 6, 0.0)(image, sample, epoch).tobytes()
        for seed, sample, epoch in ((7, 5, 2), (8, 5, 2), (7, 6, 2), (7, 5, 3), (7, 5, 2))
    ]
    assert len(set(told)) == 4 and told[0] == told[4]
    assert np.array_equal(pickle.loads(pickle.dumps(SMALL))(image, 5, 2), SMALL(image, 5, 2))


def test_draws_are_pinned_so_that_old_runs_resume_on_new_code():
    corners, grey = PAPER.draws(2, 1)
    places = [(42, 4), (112, 14), (218, 5), (34, 100), (127, 99), (215, 93), (41, 190), (121, 188), (204, 176)]
    assert list(map(tuple, corners.tolist())) == places and not grey


@pytest.mark.parametrize("shape", [(4, 9, 3, 8, 8), (7, 1, 5, 5), (2, 3, 64, 64)])
def test_each_patch_is_standardised_by_itself(shape):
    given = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    given[0, ..., :2] = 255
    made = standardise(torch.from_numpy(given)).numpy()
    exact = given.astype(np.float64)
    mean, std = (of(exact, axis=(-3, -2, -1), keepdims=True) for of in (np.mean, np.std))
    assert made.dtype == np.float32 and made.flags.c_contiguous
    np.testing.assert_allclose(made, (exact - mean) / std, rtol=2.0**-23, atol=1e-12)  # rounded once, to float32


def test_a_patch_of_one_colour_is_zero_and_one_of_nearly_one_is_not_blown_up():
    flat = torch.full((2, 3, 16, 16), 77, dtype=torch.uint8)
    flat[1, 0, 0, 0] = 78
    made = standardise(flat)
    assert not made[0].any() and torch.isfinite(made).all()
    count = 3 * 16 * 16  # the deviation, sqrt(count - 1) / count, is just below the least
    expected = np.float32((1 - 1 / count) * count**0.5)
    assert made[1, 0, 0, 0].item() == expected


def test_standardising_depends_neither_on_the_batch_nor_on_threads_or_memory(threads):
    given = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (64, 32, 32, 3), np.uint8)).permute(0, 3, 1, 2)
    together = standardise(given)
    assert together.is_contiguous()
    for count, part in ((1, slice(0, 1)), (2, slice(1, 2)), (2, slice(2, 64))):
        threads(count)
        assert torch.equal(standardise(given[part]), together[part])
        assert torch.equal(standardise(given[part].contiguous()), together[part])


REFUSED = {
    "image_size=86": ({"image_size": 86}, "a patch lies within method.cell=85; use at most 85"),
    "cell=98": ({"cell": 98}, "3 cells a side do not fit into method.resize=292; use at most 97"),
    "cell=85": ({"resize": 254}, "use at most 84"),
    "grid=1": ({"grid": 1}, "give 2 or more"),
    "resize=0": ({"resize": 0}, "give a positive number"),
    "grey=1.5": ({"grey": 1.5}, "give a number from 0 to 1"),
    "image_size=4": ({"image_size": 4}, "too small for small_vgg; use at least 8"),
    "image_size=60": ({"image_size": 60, "backbone": "vit_small_16"}, "use 48 or 64"),
}


@pytest.mark.parametrize("value", REFUSED)
def test_patches_that_cannot_be_are_one_line_with_the_field_and_the_fix(value):
    fields, fix = REFUSED[value]
    with pytest.raises(InputError) as refusal:
        patches.check_patches(PatchesConfig(**{"backbone": "small_vgg", **fields}), None)
    assert str(refusal.value).startswith(f"method.{value}: ") and fix in str(refusal.value)


def test_the_papers_patches_are_accepted_also_frozen():
    config = freeze(PatchesConfig(backbone="small_vgg"))
    patches.check_patches(config, None)
    assert (config.grid * config.cell, config.resize, config.grey) == (255, 292, 1 / 3)
    assert patches.patches_of(config) == ((9, 64),)
