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
from methods.evals.attention.spec import Attention
from methods.evals.subject import Subject, percent

VOID = 255  # in the masks of PASCAL VOC: neither object nor background
GAP = 4  # pixels between the parts of a picture
SMALLEST = 128  # pixels of the longer side of each part


def score(subject: Subject, settings: Attention) -> dict[str, Any]:
    """`pictures` written to the folder `attention` of the evaluation; with masks, Jaccard similarities in percent over
    `images`: `jaccard` of the head that is best over all images, `jaccard_best` of the best head of each image,
    `jaccard_heads` of each head; `jaccard_objects` of the best head of each object, mean over the objects of an image,
    then over images (the authors' measure: facebookresearch/dino#54).

    The ranks take the images in turn. Collective; raises Stopped, and InputError where no image has a mask.
    """
    job, heads = subject.job, []
    dataset = job.dataset if job.labelled is None else subject.splits["test"]
    folder = job.run.path / "attention"
    if job.world.is_main:
        folder.mkdir(exist_ok=True)
    job.world.barrier()
    looked = min(settings.pictures, len(dataset))
    wanted = range(len(dataset)) if settings.masks else range(looked)
    turns = math.ceil(len(wanted) / job.world.size)
    for turn in range(turns):
        job.safe_point("attention", turn, turns)
        number = turn * job.world.size + job.world.rank
        if number >= len(wanted):
            continue
        try:
            image = dataset.image(number)
        except BrokenImage as error:
            print(f"attention: left out: {error}", flush=True)
            continue
        mask = _mask(settings.masks, dataset, number) if settings.masks else None
        if mask is None and number >= looked:
            continue
        maps = attended(subject.backbone, job.config.backbone, _resized(subject, settings, image))
        if number < looked:
            _picture(image, maps, settings.mass).save(folder / f"{number:04d}.png")
        if mask is not None:
            kept = covered(maps, settings.mass)
            heads.append((jaccard(kept, mask), of_objects(kept, mask)))
    rows = [row for part in job.world.gather(heads) for row in part]
    found = np.array([row for row, _ in rows])  # [images, heads]
    scores: dict[str, Any] = {"pictures": looked}
    if settings.masks:
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


def _mask(folder: str, dataset: ImageDataset, number: int) -> np.ndarray | None:
    """uint8 [H, W], or None where there is none. A palette's numbers are taken as they are."""
    name = Path(dataset.name_of(number))
    for file in (Path(folder) / f"{name}.png", Path(folder) / name.with_suffix(".png")):
        if file.is_file():
            with Image.open(file, formats=("PNG",)) as image:
                return np.array(image if image.mode in ("P", "L", "1") else image.convert("L")).astype(np.uint8)
    return None


def _picture(image: Image.Image, maps: torch.Tensor, mass: float) -> Image.Image:
    """RGB: the image, the attention of each head beside it, and below each what holds `mass` of it."""
    scale = max(SMALLEST, *image.size) / max(image.size)
    size = tuple(max(1, round(each * scale)) for each in image.size)
    photo = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))
    columns = 1 + len(maps)
    canvas = Image.new("RGB", (columns * (size[0] + GAP) - GAP, 2 * size[1] + GAP), "white")
    canvas.paste(Image.fromarray(photo), (0, 0))
    for number, (values, kept) in enumerate(zip(maps.numpy(), covered(maps, mass), strict=True), 1):
        left = number * (size[0] + GAP)
        spread = float(values.max() - values.min()) or 1.0
        grey = Image.fromarray((255 * (values - values.min()) / spread).astype(np.uint8))
        canvas.paste(grey.resize(size, Image.Resampling.NEAREST).convert("RGB"), (left, 0))
        inside = np.asarray(Image.fromarray(255 * kept.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)) > 0
        shown = np.where(inside[..., None], photo, photo // 4 + 160)
        canvas.paste(Image.fromarray(shown.astype(np.uint8)), (left, size[1] + GAP))
    return canvas
