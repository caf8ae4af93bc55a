"""Clips made here whose every object is known in every frame.

A square of a photograph's test tile wanders over it, and one to three shapes, each of a material of its own, wander
over that, turn and grow. A clip is a function of (seed, number) alone; `data=photos` trains on no pixel of it.
"""

import functools
from dataclasses import dataclass

import numpy as np
from PIL import Image

from methods.data.dataset import Clip
from methods.data.photos import TEST, TILE, corners_of, load
from methods.data.sets.made_clips.spec import MadeClipsData
from methods.data.sets.made_objects.reader import BACKGROUNDS, MATERIALS, SHAPES

RADIUS = (0.12, 0.2)  # of an object, as a share of the side
GROWTH, TURN = 0.25, 1.0  # of the radius, and radians, over a clip, at most
GREY = 60.0  # levels, at least, between the mean of an object and that of the background
FINE = 4  # samples a pixel, in both directions, of a shape's border


@dataclass(frozen=True)
class _Moving:
    """An object: where its centre is at the clip's beginning and end, [row, column] in pixels of a frame."""

    shape: str
    paths: np.ndarray  # float64 [2, 2]
    radii: tuple[float, float]
    angles: tuple[float, float]
    material: np.ndarray  # float64 [t, t, 3]

    def at(self, time: float) -> tuple[np.ndarray, float, float]:
        """(centre, radius, angle), time from 0 to 1."""
        between = [first + (last - first) * time for first, last in (self.paths, self.radii, self.angles)]
        return between[0], float(between[1]), float(between[2])


class MadeClips:
    """RGB frames of side x side pixels, clip after clip; fewer clips are the first of more."""

    channels = 3
    small = True
    classes = labels = None

    def __init__(self, *, clips: int = 8, frames: int = 16, side: int = 64, seed: int = 0):
        self._frames, self._side, self._seed = frames, side, seed
        self.clips = tuple(Clip(f"clip{n:04d}", n * frames, (n + 1) * frames) for n in range(clips))

    def __len__(self) -> int:
        return len(self.clips) * self._frames

    def image(self, index: int) -> Image.Image:
        return Image.fromarray(self._made(index)[0])

    def mask(self, index: int) -> np.ndarray:
        """uint8 [side, side]: 0 background, i + 1 where at least half of a pixel is object i, the later above the
        earlier."""
        return self._made(index)[1]

    def name_of(self, index: int) -> str:
        """clip0003/00012."""
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        clip, frame = divmod(index, self._frames)
        return f"{self.clips[clip].name}/{frame:05d}"

    def _made(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        self.name_of(index)
        clip, frame = divmod(index, self._frames)
        time, side = frame / (self._frames - 1), self._side
        tile, corners, objects = _drawn(self._seed, clip, side)
        row, column = np.rint(corners[0] + (corners[1] - corners[0]) * time).astype(int)
        pixels = tile[row : row + side, column : column + side]
        mask = np.zeros((side, side), np.uint8)
        for number, each in enumerate(objects, 1):
            cover = _cover(each, time, side)
            pixels = pixels * (1 - cover[..., None]) + _painted(each, time, side) * cover[..., None]
            mask[cover >= 0.5] = number
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), mask


@functools.lru_cache(4)  # the frames of a clip come one after the other
def _drawn(seed: int, clip: int, side: int) -> tuple[np.ndarray, np.ndarray, tuple[_Moving, ...]]:
    """(the tile [TILE, TILE, 3], corners of the first and last frame in it [2, 2], the objects) of a clip."""
    rng = np.random.default_rng([seed, clip])
    tile = _tile(rng, BACKGROUNDS[rng.integers(len(BACKGROUNDS))], TILE)
    corners = rng.uniform(0, TILE - side, (2, 2))
    objects: list[_Moving] = []
    for shape in rng.permutation(list(SHAPES))[: rng.integers(1, 4)].tolist():
        radius = rng.uniform(*RADIUS) * side
        radii = radius, radius * (1 + rng.uniform(-GROWTH, GROWTH))
        material = _tile(rng, MATERIALS[shape], 2 * int(np.ceil(max(radii))) + 2)
        gap = material.mean() - tile.mean()
        if abs(gap) < GREY:
            material = material + (GREY - abs(gap)) * (1 if gap >= 0 else -1)
        angle = rng.uniform(0, 2 * np.pi)
        angles = angle, angle + rng.uniform(-TURN, TURN)
        for _ in range(50):  # in the first frame none is hidden; one that finds no place is left out
            paths = rng.uniform(max(radii), side - max(radii), (2, 2))
            if all(np.hypot(*(paths[0] - o.paths[0])) > radii[0] + o.radii[0] for o in objects):
                objects.append(_Moving(shape, paths, radii, angles, material))
                break
    return tile, corners, tuple(objects)


def _tile(rng: np.random.Generator, photograph: str, side: int) -> np.ndarray:
    width, height = load(photograph).size
    corners = corners_of(height, width, (TEST,), side)
    row, column = corners[rng.integers(len(corners))].tolist()
    return np.asarray(load(photograph).crop((column, row, column + side, row + side)).convert("RGB"), np.float64)


def _cover(each: _Moving, time: float, side: int) -> np.ndarray:
    """float64 [side, side]: which share of a pixel the object has."""
    (row, column), radius, angle = each.at(time)
    fine = (np.arange(side * FINE) + 0.5) / FINE
    down, right = ((fine - row) / radius)[:, None], ((fine - column) / radius)[None, :]
    cosine, sine = np.cos(angle), np.sin(angle)
    inside = SHAPES[each.shape](cosine * right + sine * down, cosine * down - sine * right)
    return inside.reshape(side, FINE, side, FINE).mean((1, 3))


def _painted(each: _Moving, time: float, side: int) -> np.ndarray:
    """float64 [side, side, 3]: the material, which moves with the object's centre."""
    (row, column), _, _ = each.at(time)
    half = len(each.material) / 2
    rows, columns = (
        np.clip(np.rint(np.arange(side) - at + half).astype(int), 0, len(each.material) - 1) for at in (row, column)
    )
    return each.material[rows][:, columns]


def read(config: MadeClipsData, split: str) -> MadeClips:
    how = {"frames": config.frames, "side": config.side, "seed": config.seed}
    return MadeClips(clips=config.clips if split == "test" else 0, **how)
