"""What the class token of a vision transformer looks at in its last layer (thesis 5.5.2): pictures, and how well it
covers the object."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from launcher.errors import InputError
from methods.backbones.spec import BACKBONES
from methods.data.dataset import BrokenImage, ImageDataset
from methods.evals.attention.picture import VOID, beside_truth, in_colours, of_heads
from methods.evals.attention.spec import Attention
from methods.evals.subject import Subject, percent

OF_OBJECTS = ("object_masks", "pixels")  # of a data set that knows where its objects are


def score(subject: Subject, settings: Attention) -> dict[str, Any]:
    """`pictures` are in the folder `attention` of the evaluation: of each image NUMBER.png, every head by itself,
    NUMBER_heads.png, all of them in colours, and NUMBER_masks.png, what the best one keeps beside the image's mask.

    With masks, of `settings.masks` or else of the data set, Jaccard similarities in percent over `images`: `jaccard` of
    the head that is best over all images, `jaccard_best` of the best head of each image, `jaccard_heads` of each head;
    `jaccard_objects` of the best head of each object, mean over the objects of an image, then over images (the authors'
    measure: facebookresearch/dino#54).

    The ranks take the images in turn. Collective; raises Stopped, and InputError where no image has a mask.
    """
    job, heads = subject.job, []
    dataset = job.dataset if job.labelled is None else subject.splits["test"]
    folder = job.run.path / "attention"
    if job.world.is_main:
        folder.mkdir(exist_ok=True)
    job.world.barrier()
    looked = min(settings.pictures, len(dataset))
    masked = settings.masks is not None or any(hasattr(dataset, name) for name in OF_OBJECTS)
    wanted = range(len(dataset)) if masked else range(looked)
    turns = math.ceil(len(wanted) / job.world.size)
    for turn in range(turns):
        job.safe_point("attention", turn, turns)
        number = turn * job.world.size + job.world.rank
        if number >= len(wanted):
            continue
        try:
            image = dataset.image(number)
            mask = mask_of(dataset, number, settings.masks) if masked else None
        except BrokenImage as error:
            print(f"attention: left out: {error}", flush=True)
            continue
        if mask is None and number >= looked:
            continue
        maps = attended(subject.backbone, job.config.backbone, _resized(subject, settings, image))
        kept = covered(maps, settings.mass)
        values = jaccard(kept, mask) if mask is not None else []
        if values:
            heads.append((values, of_objects(kept, mask)))
        if number < looked:
            of_heads(image, maps.numpy(), kept).save(folder / f"{number:04d}.png")
            in_colours(image, maps.numpy(), kept).save(folder / f"{number:04d}_heads.png")
            if values:
                beside_truth(image, mask, kept, values).save(folder / f"{number:04d}_masks.png")
    rows = [row for part in job.world.gather(heads) for row in part]
    found = np.array([row for row, _ in rows])  # [images, heads]
    scores: dict[str, Any] = {"pictures": looked}
    if masked:
        if not len(found) and settings.masks is None:
            raise InputError.of("eval_data", ..., "none of its images can be read", "look at its files")
        if not len(found):
            fix = "give a folder with PATH.png for images of the data at PATH"
            raise InputError.of("attention.masks", settings.masks, "no image has a mask there", fix)
        by_head = found.mean(axis=0)
        best = found.max(axis=1).mean()
        scores |= {"images": len(found), "jaccard": percent(by_head.max()), "jaccard_best": percent(best)}
        objects = [value for _, value in rows if value is not None]
        if objects:
            scores["jaccard_objects"] = percent(np.mean(objects))
        scores["jaccard_heads"] = {str(number): percent(value) for number, value in enumerate(by_head)}
    return scores


@torch.no_grad()
def attended(network: nn.Module, backbone: str, image: torch.Tensor) -> torch.Tensor:
    """What the class token's query gives each patch in the last layer: float32 [heads, rows, columns], in host memory;
    with what it gives to itself the sum over patches is 1 in each head.

    network: of `methods.backbones.build`, a vision transformer with class token. image: uint8 [C, H, W].
    """
    block = network.trunk.blocks[-1].attn
    caught: list[torch.Tensor] = []
    hook = block.register_forward_pre_hook(lambda _module, given: caught.append(given[0]))
    try:
        network(image[None].to(next(network.parameters()).device))
    finally:
        hook.remove()
    q, k, _ = block.qkv(caught[0]).float().unflatten(2, (3, block.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scores = (q[:, :, :1] @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    patch = BACKBONES[backbone].patch
    grid = tuple(side // patch for side in image.shape[1:])
    return scores.softmax(-1)[0, :, 0, 1:].unflatten(1, grid).cpu()


def covered(maps: torch.Tensor, mass: float) -> np.ndarray:
    """bool [heads, rows, columns]: the fewest patches of each head that hold the share `mass` of what it gives to
    patches."""
    flat = maps.flatten(1).double()
    flat = flat / flat.sum(1, keepdim=True).clamp_min(1e-30)
    values, order = flat.sort(dim=1, descending=True)
    before = values.cumsum(1) - values  # held by those that come first
    kept = torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, before < mass)
    return kept.view_as(maps).numpy()


def jaccard(kept: np.ndarray, mask: np.ndarray) -> list[float]:
    """Intersection over union of each head's patches, bool [heads, rows, columns], and the mask [H, W], whose pixels
    are 0 (background), 255 (void, left out) or anything else (object); at the size of the mask. 0 to 1."""
    height, width = mask.shape
    rows = (np.arange(height) * kept.shape[1]) // height
    columns = (np.arange(width) * kept.shape[2]) // width
    known, thing = mask != VOID, (mask != 0) & (mask != VOID)
    found = []
    for head in kept:
        there = head[rows[:, None], columns] & known
        union = int((there | thing).sum())
        found.append(float((there & thing).sum() / union) if union else 1.0)
    return found


def of_objects(kept: np.ndarray, mask: np.ndarray) -> float | None:
    """Of each object of `mask`, a value that is neither background nor void, the `jaccard` of the best head, mean over
    them; None without any. All else, the other objects too, is background to an object."""
    values = np.setdiff1d(mask, (0, VOID))
    best = [max(jaccard(kept, np.where((mask == value) | (mask == VOID), mask, 0))) for value in values]
    return float(np.mean(best)) if best else None


def _resized(subject: Subject, settings: Attention, image: Image.Image) -> torch.Tensor:
    """uint8 [C, H, W]: the whole image, its shorter side as wanted, both sides multiples of a patch."""
    patch = BACKBONES[subject.job.config.backbone].patch
    scale = (settings.size or subject.job.config.image_size) / min(image.size)
    width, height = (max(1, round(side * scale / patch)) * patch for side in image.size)
    pixels = np.array(image.resize((width, height), Image.Resampling.BICUBIC))
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return torch.from_numpy(np.ascontiguousarray(planes))


def mask_of(dataset: ImageDataset, number: int, folder: str | None) -> np.ndarray | None:
    """uint8 [H, W] of an image, 0 background, VOID neither, each other value an object: of a file in `folder`, whose
    palette's numbers are taken as they are, or None where there is none; without `folder` what the data set says, of
    which the objects are counted from 1, or without any its classes are the objects."""
    if folder is not None:
        return _read(folder, Path(dataset.name_of(number)))
    pixels = dataset.pixels(number) if hasattr(dataset, "pixels") else None
    if not hasattr(dataset, "object_masks"):
        return pixels
    objects = dataset.object_masks(number)
    mask = np.zeros(objects.shape[1:], np.uint8)
    for place, inside in enumerate(objects):
        mask[inside] = min(place, VOID - 2) + 1
    if pixels is not None:
        mask[(pixels == VOID) & (mask == 0)] = VOID
    return mask


def _read(folder: str, name: Path) -> np.ndarray | None:
    for file in (Path(folder) / f"{name}.png", Path(folder) / name.with_suffix(".png")):
        if file.is_file():
            with Image.open(file, formats=("PNG",)) as image:
                return np.array(image if image.mode in ("P", "L", "1") else image.convert("L")).astype(np.uint8)
    return None
