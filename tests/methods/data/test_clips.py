"""Clips with masks: DAVIS 2017 as its authors lay it, and those that are made here."""

import os

import numpy as np
import pytest
from PIL import Image

from launcher.errors import InputError
from methods.data import build
from methods.data.dataset import BrokenImage
from methods.data.sets.davis.spec import DavisData
from methods.data.sets.made_clips.reader import MadeClips
from methods.data.sets.made_clips.spec import MadeClipsData
from methods.data.spec import check

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0]


@pytest.fixture
def davis(tmp_path):
    """Two clips to train on and one that judges, of three frames each."""
    root = tmp_path / "DAVIS"
    for part, clips in (("train", ("bear", "bike-packing")), ("val", ("blackswan",))):
        (root / "ImageSets" / "2017").mkdir(parents=True, exist_ok=True)
        (root / "ImageSets" / "2017" / f"{part}.txt").write_text("".join(f"{clip}\n" for clip in clips))
        for number, clip in enumerate(clips):
            for kind in ("JPEGImages", "Annotations"):
                (root / kind / "480p" / clip).mkdir(parents=True)
            for frame in range(3):
                grey = np.full((12, 20, 3), 40 * number + 10 * frame, np.uint8)
                Image.fromarray(grey).save(root / "JPEGImages" / "480p" / clip / f"{frame:05d}.jpg")
                mask = Image.fromarray((np.arange(240).reshape(12, 20) // 80).astype(np.uint8), "P")
                mask.putpalette(PALETTE)
                mask.save(root / "Annotations" / "480p" / clip / f"{frame:05d}.png")
    return root


@pytest.mark.parametrize("above", [True, False])
def test_frames_and_masks_are_read_clip_by_clip(davis, above):
    path = str(davis.parent if above else davis)
    train, test = (build(DavisData(path=path), split) for split in ("train", "test"))
    assert [(clip.name, clip.first, clip.last) for clip in train.clips] == [("bear", 0, 3), ("bike-packing", 3, 6)]
    assert (len(test), test.name_of(2), test.labels) == (3, "blackswan/00002", None)
    assert abs(int(np.asarray(train.image(4)).mean()) - 50) <= 1 and train.image(4).size == (20, 12)
    assert np.array_equal(train.mask(5), np.arange(240).reshape(12, 20) // 80)


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("ImageSets/2017/val.txt", "val.txt' is missing; unpack DAVIS-2017-trainval-480p.zip"),
        ("JPEGImages/480p/bear/00000.jpg", "bear/00000.jpg' is missing"),
        ("Annotations/480p/blackswan/00000.png", "blackswan/00000.png' is missing"),
    ],
)
def test_another_layout_is_refused_in_a_line_with_the_file_that_was_looked_for(davis, gone, said):
    (davis / gone).unlink()
    with pytest.raises(InputError, match=r"^eval_data.path=") as found:
        check(DavisData(path=str(davis)), "eval_data")
    assert said in str(found.value) and "\n" not in str(found.value)


def test_a_frame_without_a_mask_is_told_before_anything_is_computed(davis):
    (davis / "Annotations/480p/bike-packing/00001.png").unlink()
    assert len(build(DavisData(path=str(davis)), "test")) == 3
    with pytest.raises(InputError, match=r"bike-packing/00001.png is missing; unpack DAVIS-2017-trainval-480p.zip"):
        build(DavisData(path=str(davis)), "train")


def test_a_list_that_leads_elsewhere_and_files_that_are_no_masks_are_refused(davis):
    (davis / "Annotations/480p/bear/00001.png").write_bytes(b"no PNG")
    (davis / "JPEGImages/480p/bear/00002.jpg").unlink()
    os.mkfifo(davis / "JPEGImages/480p/bear/00002.jpg")
    data = build(DavisData(path=str(davis)), "train")
    with pytest.raises(BrokenImage, match=r"^mask of bear/00001: "):
        data.mask(1)
    with pytest.raises(BrokenImage, match=r"^bear/00002: "):
        data.image(2)
    (davis / "ImageSets/2017/train.txt").write_text("../../secret\n")
    with pytest.raises(InputError, match=r"names '../../secret'"):
        build(DavisData(path=str(davis)), "train")


def test_clips_made_here_move_and_show_every_object_in_the_first_frame():
    data = MadeClips(clips=4, frames=6, side=48)
    assert len(data) == 24 and data.name_of(7) == "clip0001/00001"
    for clip in data.clips:
        first, last = data.mask(clip.first), data.mask(clip.last - 1)
        assert set(np.unique(first)) == set(range(first.max() + 1)) and 1 <= first.max() <= 3
        assert (first != last).any() and (
            np.asarray(data.image(clip.first)) != np.asarray(data.image(clip.last - 1))
        ).any()
    more = MadeClips(clips=6, frames=6, side=48)
    assert np.array_equal(np.asarray(more.image(9)), np.asarray(data.image(9)))
    other = MadeClips(clips=4, frames=6, side=48, seed=1)
    assert not np.array_equal(np.asarray(other.image(9)), np.asarray(data.image(9)))


def test_they_are_built_from_their_config_and_all_judge():
    config = MadeClipsData(clips=2, frames=3)
    assert [len(build(config, split)) for split in ("train", "test")] == [0, 6]
    with pytest.raises(InputError, match=r"^eval_data.frames=2: out of range; give 3 to 100"):
        check(MadeClipsData(frames=2), "eval_data")
