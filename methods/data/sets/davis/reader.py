"""DAVIS 2017 (Pont-Tuset et al., arXiv:1704.00675) as its authors lay it: folders of frames and of masks, by clip."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from launcher.errors import InputError
from launcher.run import files
from methods.data.dataset import Clip
from methods.data.pixel_maps import LEVELS, picture, pixel_map
from methods.data.sets.davis.spec import LAID, LIST_BYTES, LISTS, NAME, DavisData, folder

OBJECTS = {number: number for number in range(LEVELS)}  # a palette's places are the objects


class Davis:
    """RGB frames, clip after clip; `mask` tells the objects of each. Raises InputError where a list names no clip, or
    one whose frames, or the mask of one of them, are not there."""

    channels = 3
    classes = labels = None

    def __init__(self, path: str | Path, split: str):
        self._root = folder(str(path))
        self._frames: list[tuple[str, str]] = []  # (clip, number as in the file's name)
        clips = []
        for name in self._listed(LISTS[split]):
            numbers = self._numbers(name)
            clips.append(Clip(name, len(self._frames), len(self._frames) + len(numbers)))
            self._frames += [(name, number) for number in numbers]
        self.clips = tuple(clips)

    def __len__(self) -> int:
        return len(self._frames)

    def image(self, index: int) -> Image.Image:
        """RGB, at the size stored."""
        return picture(self._file("JPEGImages", index, "jpg"), self.name_of(index))

    def mask(self, index: int) -> np.ndarray:
        """uint8 [H, W]: 0 background, the number of an object, or 255, void. Raises BrokenImage."""
        file = self._file("Annotations", index, "png")
        return pixel_map(file, f"mask of {self.name_of(index)}", OBJECTS)

    def name_of(self, index: int) -> str:
        """bike-packing/00012."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return "/".join(self._frames[index])

    def _file(self, kind: str, index: int, suffix: str) -> str:
        return os.path.join(self._root, kind, "480p", f"{self.name_of(index)}.{suffix}")

    def _listed(self, name: str) -> list[str]:
        file = os.path.join(self._root, "ImageSets", "2017", name)
        try:
            text = files.read(os.path.realpath(file), LIST_BYTES).decode("ascii")
        except (OSError, UnicodeDecodeError, files.NotOurs) as error:
            raise InputError.of("data.path", ..., f"{file!r} cannot be read ({error})", LAID) from None
        found = [line.strip() for line in text.splitlines() if line.strip()]
        strange = [clip for clip in found if not NAME.fullmatch(clip)]
        if strange or not found:
            said = f"{file!r} names {strange[0][:60]!r}" if strange else f"{file!r} names no clip"
            raise InputError.of("data.path", ..., said, LAID)
        return found

    def _numbers(self, clip: str) -> list[str]:
        frames, masks = (os.path.join(self._root, kind, "480p", clip) for kind in ("JPEGImages", "Annotations"))
        found, masked = self._of(frames, ".jpg"), set(self._of(masks, ".png"))
        if not found:
            raise InputError.of("data.path", ..., f"{frames!r} holds no frame", LAID)
        if missing := [number for number in found if number not in masked]:
            raise InputError.of("data.path", ..., f"{os.path.join(masks, missing[0])}.png is missing", LAID)
        return found

    def _of(self, where: str, suffix: str) -> list[str]:
        """The numbers of a folder's files, in order."""
        try:
            names = os.listdir(where)
        except OSError as error:
            raise InputError.of("data.path", ..., f"{where!r} cannot be listed ({error.strerror})", LAID) from None
        return sorted(
            stem for stem in (name.removesuffix(suffix) for name in names if name.endswith(suffix)) if stem.isdigit()
        )


def read(config: DavisData, split: str) -> Davis:
    return Davis(config.path, split)
