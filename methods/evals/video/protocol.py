"""How well labels of a clip's first frame are carried through it by frozen features (thesis Table 5.6)."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from launcher.errors import InputError
from methods.data.dataset import BrokenImage, Clip, ClipDataset
from methods.evals.dense import mapper, stride_of
from methods.evals.subject import Subject, percent
from methods.evals.video import picture
from methods.evals.video.propagation import Propagation, of_patches, of_pixels
from methods.evals.video.similarity import contour, region
from methods.evals.video.spec import Video

KEPT = "clip"  # of the items in the store, one a clip
VOID = 255
STEP = 64  # pixels that the longer side of a frame is a multiple of, as published, where it is made smaller
SHORTEST = 3  # frames: neither the first one is judged nor the last
GOOD = 0.5  # J and F above which a frame counts to the recall
Encode = Callable[[torch.Tensor], torch.Tensor]


class Followed(NamedTuple):
    """Of the objects of a clip, mean over its frames without the first and the last, float64 [objects] each."""

    j: np.ndarray
    f: np.ndarray
    j_recall: np.ndarray
    f_recall: np.ndarray


def score(subject: Subject, settings: Video) -> dict[str, float]:
    """`j_mean` and `f_mean`, region similarity and contour accuracy, means over all objects of all clips, in percent;
    `j_and_f`, the mean of both; `j_recall` and `f_recall`, the shares of frames above a half.

    The ranks take the clips in turn. With pictures, strips of frames in the evaluation's `video/`. Collective; raises
    Stopped, with the clips that are done kept, and InputError where a clip is too short, or a frame or its mask cannot
    be read or has another size than the clip's first.
    """
    job, world, dataset = subject.job, subject.job.world, subject.splits["test"]
    clips: tuple[Clip, ...] = dataset.clips
    for clip in clips:
        if clip.last - clip.first < SHORTEST:
            reason = f"clip {clip.name} has {clip.last - clip.first} frames, of which none is judged"
            raise InputError.of("eval_data", ..., reason, f"give clips of {SHORTEST} frames or more")
    if settings.pictures and world.is_main:
        (job.run.path / settings.name).mkdir(exist_ok=True)
    world.barrier()
    objects = sum(len(clips) * 32 for _ in Followed._fields)
    with (
        subject.keeping(settings.name, vars(settings), needed=8 * objects) as store,
        mapper(job.config.backbone, subject.backbone) as mapped,
        torch.no_grad(),
    ):

        def encode(images: torch.Tensor) -> torch.Tensor:
            with job.autocast():  # what follows the features is float32 whatever the run's precision
                return mapped(images)

        mine = {
            number: Followed(*(kept[name].numpy() for name in Followed._fields))
            for number, _, kept in subject.restored(store, KEPT)
        }
        done = {number for part in world.gather(list(mine)) for number in part}
        todo = [number for number in range(len(clips)) if number not in done]
        store.figures |= {"clips": len(clips), "clips_restored": len(done)}
        before, total = 0, sum(clips[number].last - clips[number].first for number in todo)
        for turn in range(math.ceil(len(todo) / world.size)):
            numbers = todo[turn * world.size : (turn + 1) * world.size]
            lengths = [clips[number].last - clips[number].first for number in numbers]
            number = numbers[world.rank] if world.rank < len(numbers) else None
            work, broken = iter(()) if number is None else _followed(subject, settings, encode, number), ""
            for frame in range(max(lengths)):  # all ranks meet between two frames
                job.safe_point("frames", before + sum(min(frame, length) for length in lengths), total)
                try:
                    found = next(work, None)
                except BrokenImage as error:
                    found, broken = None, str(error)
                if found is not None and number is not None:
                    mine[number] = found
                    kept = {name: torch.from_numpy(values) for name, values in found._asdict().items()}
                    store.keep(KEPT, number, number + 1, kept, {})
            before += sum(lengths)
            if reasons := [each for each in world.gather(broken) if each]:
                raise InputError.of("eval_data", ..., reasons[0], "every frame of a clip and its mask are needed")
        job.safe_point("frames", total, total)
    said = world.gather([(number, [values.tolist() for values in found]) for number, found in mine.items()])
    parts = [found for _, found in sorted(each for part in said for each in part)]  # so that sums have one order
    if not any(part[0] for part in parts):
        raise InputError.of("eval_data", ..., "no first frame shows an object", "give clips with masks")
    j, f, j_recall, f_recall = (np.concatenate([part[n] for part in parts]).mean() for n in range(4))
    return {
        "j_and_f": percent((j + f) / 2),
        "j_mean": percent(j),
        "f_mean": percent(f),
        "j_recall": percent(j_recall),
        "f_recall": percent(f_recall),
    }


def _followed(subject: Subject, settings: Video, encode: Encode, number: int) -> Iterator[Followed | None]:
    """The frames of a clip, one a step; the last gives what it is worth."""
    dataset: ClipDataset = subject.splits["test"]
    clip, device = dataset.clips[number], subject.job.world.device
    first, truth = dataset.image(clip.first), dataset.mask(clip.first)
    objects = int(truth[truth != VOID].max(initial=0))
    shown = picture.shown(clip.last - clip.first) if number < settings.pictures else []
    strips: list[tuple[int, Image.Image, np.ndarray, np.ndarray]] = []
    regions, contours, propagation = [], [], None
    for index in range(clip.first, clip.last):
        image = first if index == clip.first else dataset.image(index)
        if image.size != first.size:
            raise BrokenImage(
                dataset.name_of(index), f"{_sides(image)} pixels, and the clip's first has {_sides(first)}"
            )
        pixels = _resized(image, settings.side, stride_of(subject.job.config.backbone))
        features = encode(pixels[None].to(device))[0]
        grid, scale = tuple(features.shape[1:]), pixels.shape[1] // features.shape[1]
        if propagation is None:
            found = np.where(truth == VOID, 0, truth).astype(np.uint8)
            propagation = Propagation(settings, features, of_patches(found, objects, grid).to(device))
        else:
            labels = of_pixels(propagation.next(features), scale).cpu().numpy().astype(np.uint8)
            found = np.asarray(Image.fromarray(labels).resize(image.size, Image.Resampling.NEAREST))
        judged = clip.first < index < clip.last - 1
        if judged or index in (clip.first, clip.last - 1):
            there = truth if index == clip.first else dataset.mask(index)
            if there.shape != image.size[::-1]:
                sides = f"{there.shape[1]} x {there.shape[0]}"
                raise BrokenImage(f"mask of {dataset.name_of(index)}", f"{sides} pixels, and the frame {_sides(image)}")
            if index - clip.first in shown:
                strips.append((index - clip.first, image, there, found))
        if judged:
            void, numbers = there == VOID, range(1, objects + 1)
            regions.append([region(found == n, there == n, void) for n in numbers])
            contours.append([contour(found == n, there == n, void) for n in numbers])
        if index < clip.last - 1:
            yield None
    if strips:
        picture.strip(*zip(*strips, strict=True)).save(subject.job.run.path / settings.name / f"{clip.name}.png")
    j, f = np.array(regions), np.array(contours)  # [frames, objects]
    yield Followed(j.mean(0), f.mean(0), (j > GOOD).mean(0), (f > GOOD).mean(0))


def _sides(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"


def _resized(image: Image.Image, side: int, stride: int) -> torch.Tensor:
    """uint8 [C, H, W]: the shorter side of `side` pixels and the longer one of a multiple of 64, as published, of a
    smaller image as they are; then both of the next smaller multiple of `stride`. Bilinear from the four pixels around,
    whatever the scale, as published (OpenCV's)."""
    shorter, sides = min(image.size), image.size
    if shorter >= side:
        sides = [side if each == shorter else max(1, each * side // shorter // STEP) * STEP for each in sides]
    width, height = (max(1, each // stride) * stride for each in sides)
    pixels = np.array(image)
    planes = torch.from_numpy(np.ascontiguousarray(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)))
    if (width, height) == image.size:
        return planes
    resized = interpolate(planes[None].float(), size=(height, width), mode="bilinear", align_corners=False)[0]
    return resized.round().to(torch.uint8)
