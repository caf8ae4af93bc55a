"""A detector that begins with the backbone, learns on the train split and is judged on the test split.

An image's loss is that of the image alone, and the loss of a step is the mean over its images, so that it is the same
on any number of ranks; all that is drawn follows from (seed, step, image).
"""

import contextlib
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection import FasterRCNN

from launcher.errors import InputError
from methods.data.dataset import BoxedDataset, tags_of
from methods.data.loader import Batch, Request
from methods.data.sampler import Permutation
from methods.evals.detection.boxes import Boxes
from methods.evals.detection.judged import CocoPrecision, VocPrecision, scores_of
from methods.evals.detection.model import NORM, detector, learning, loss_of
from methods.evals.detection.spec import Detection
from methods.evals.fit import Fit
from methods.evals.subject import Subject, percent
from methods.parts.batchnorm import synchronise

FIRST_SHARE = 1e-3  # of the rate, in the first step: Detectron2's
SURE = 0.5  # of a pixel of a mask
BLANK = 256  # pixels a side of what stands for an image that cannot be decoded


class Example(NamedTuple):
    """An image to learn from: its number in the data set, a batch of it alone, or of none where it cannot be decoded,
    and what is there."""

    number: int
    batch: Batch
    target: dict[str, torch.Tensor]


def score(subject: Subject, settings: Detection) -> dict[str, Any]:
    """Average precision in percent on the test split, the mean over classes: `ap` over overlaps from 0.5 to 0.95,
    `ap50` and `ap75`; of Mask R-CNN `mask_ap`, `mask_ap50` and `mask_ap75`, always by COCO's rule; `ap_by_class`.

    Collective; raises Stopped, after keeping what was learnt, Diverged, and InputError where the images do not fit.
    """
    model = learnt(subject, settings)
    there, found = _boxes(subject, settings, model.eval())
    classes = subject.splits["train"].classes
    boxes = _precision(subject, settings, there, found, "bbox")
    if np.isnan(boxes).all():
        raise InputError.of("eval_data", ..., "no image of its test split has an object", "give images that have some")
    scores = scores_of(boxes)
    if settings.detector == "mask_rcnn":
        scores |= scores_of(_precision(subject, settings, there, found, "segm"), "mask_")
    by_class = {name: percent(row.mean()) for name, row in zip(classes, boxes, strict=True) if not np.isnan(row).any()}
    return {**{key: percent(value) for key, value in scores.items()}, "ap_by_class": by_class}


def learnt(subject: Subject, settings: Detection) -> FasterRCNN:
    """The detector after all steps. Collective."""
    job, train = subject.job, subject.splits["train"]
    world = job.world
    if train.classes != subject.splits["test"].classes:
        raise InputError.of("eval_data", ..., "its two splits have other classes", "give splits of one data set")
    settings.refuse_unshared(world.size)
    tags = tags_of(train)
    # Images of which something can be learnt.
    among = np.arange(len(train)) if tags is None else np.flatnonzero((tags >= 1 - settings.difficult).any(1))
    if not len(among):
        raise InputError.of("eval_data", ..., "no image of its train split has an object", "give images that have some")
    if len(among) < settings.batch:
        job.notice(f"detection: there are {len(among)} images to learn from, fewer than a batch of {settings.batch}")
    name, seed = job.config.backbone, job.seed_for("detection weights")
    model = detector(subject.backbone, name, settings, subject.classes, seed)
    if settings.norm == "synchronised":
        model = learning(synchronise(model, world, world.size))
    fit = Fit(subject, settings.name, model, optimizer_of(model, settings))
    fit.run(
        settings.steps,
        lambda first: _batches(subject, settings, among, first),
        lambda data, step: _loss(subject, settings, model, data, step) / settings.batch,
        lambda step: share_at(settings, step),
        key=vars(settings),
        stage="detector",
    )
    return model


def optimizer_of(model: nn.Module, settings: Detection) -> torch.optim.Optimizer:
    """SGD; batch normalisation does not decay."""
    norms = {id(p) for module in model.modules() if isinstance(module, NORM) for p in module.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if id(p) not in norms], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
    ]
    return torch.optim.SGD([g for g in groups if g["params"]], lr=settings.rate, momentum=settings.momentum)


def share_at(settings: Detection, step: int) -> float:
    """What the rate is multiplied by in a step, from 0 on."""
    share = 0.1 ** sum(step >= drop for drop in settings.drops)
    if step < settings.warmup:
        share *= FIRST_SHARE + (1 - FIRST_SHARE) * step / settings.warmup
    return share


def _batches(subject: Subject, settings: Detection, among: np.ndarray, first: int) -> Iterator[list[Example]]:
    """This rank's images of each step, each a batch of its own, because all have other sizes. An epoch leaves out what
    fills no batch; where there are fewer images than a batch, it takes some of them twice."""
    job, batch, mine = subject.job, settings.batch, settings.batch // subject.job.world.size
    per_epoch, train = max(1, len(among) // batch), subject.splits["train"]

    def numbers() -> Iterator[tuple[int, np.ndarray]]:
        for step in range(first, settings.steps):
            epoch, number = divmod(step, per_epoch)
            order = Permutation(len(among), job.seed_for("detection", epoch))
            start = number * batch + job.world.rank * mine
            yield epoch, among[order(np.arange(start, start + mine) % len(among))]

    requests = (Request(ids[at : at + 1], epoch, {}) for epoch, ids in numbers() for at in range(mine))
    with contextlib.closing(job.load(_whole, requests, dataset=train, drop=True)) as stream:
        for _, ids in numbers():
            examples = zip(ids.tolist(), itertools.islice(stream, mine), strict=True)
            yield [
                Example(number, found, _target(settings, train, number) if len(found.ids) else {})
                for number, found in examples
            ]


def _target(settings: Detection, train: BoxedDataset, number: int) -> dict[str, torch.Tensor]:
    """What there is to learn of an image, as torchvision's detectors want it, in host memory."""
    boxes, kept = train.boxes(number), settings.difficult | ~train.difficult(number)
    kept &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])  # some of COCO have no area
    target = {"boxes": boxes[kept], "labels": train.box_labels(number)[kept] + 1}
    if settings.detector == "mask_rcnn":
        target["masks"] = train.object_masks(number)[kept].astype(np.uint8)
    return {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in target.items()}


def _loss(subject: Subject, settings: Detection, model: FasterRCNN, data: list[Example], step: int) -> torch.Tensor:
    """The sum of the losses of this rank's images."""
    job, device = subject.job, subject.job.world.device
    images, targets, seeds = [], [], []
    for number, batch, target in data:
        seeds.append(tuple(job.seed_for("detection draws", step, number, which) for which in (0, 1)))
        if len(batch.ids):
            images.append(batch.images[0].to(device).float() / 255)
            targets.append({key: value.to(device) for key, value in target.items()})
        else:  # cannot be decoded: black, so that all ranks have equally many
            images.append(torch.zeros(3, BLANK, BLANK, device=device))
            targets.append(_nothing(device, settings.detector == "mask_rcnn"))
    canvas = None if settings.norm == "frozen" else lambda sizes: _largest(subject, sizes)
    return loss_of(model, images, targets, seeds, canvas=canvas)


def _largest(subject: Subject, sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """(height, width) that hold the images of all ranks, so that statistics are over the same borders. Collective."""
    every = np.array([size for part in subject.job.world.gather(sizes) for size in part])
    height, width = every.max(0).tolist()
    return height, width


@torch.no_grad()
def _boxes(subject: Subject, settings: Detection, model: FasterRCNN) -> tuple[Boxes, Boxes]:
    """(those that are there, those that are found) in the test split, on rank 0. The ranks take the images in turn.
    Collective."""
    job, test, masks = subject.job, subject.splits["test"], settings.detector == "mask_rcnn"
    mine = range(job.world.rank, len(test), job.world.size)
    there, found = Boxes(), Boxes()
    stream = job.load(_whole, (Request(np.array([n]), 0, {}) for n in mine), dataset=test, drop=True)
    turns = math.ceil(len(test) / job.world.size)
    with contextlib.closing(stream):
        for turn in range(turns):
            job.safe_point("detection", turn, turns)
            if turn >= len(mine):
                continue
            number, batch = mine[turn], next(stream)
            truth = test.object_masks(number) if masks else None
            there.add(number, test.boxes(number), test.box_labels(number), test.difficult(number), truth)
            if len(batch.ids):  # in one that cannot be decoded nothing is found
                with job.autocast():
                    (made,) = model([batch.images[0].to(job.world.device).float() / 255])
                values = [made[key].float().cpu().numpy() for key in ("boxes", "labels", "scores")]
                shapes = (made["masks"][:, 0] > SURE).cpu().numpy() if masks else None
                found.add(number, values[0], values[1] - 1, values[2], shapes)
        job.safe_point("detection", turns, turns)
    return there.collected(job.world), found.collected(job.world)


def _precision(subject: Subject, settings: Detection, there: Boxes, found: Boxes, kind: str) -> np.ndarray:
    """float64 [classes, overlaps], from 0 to 1; NaN of a class that is not there. kind: "bbox" or "segm". Rank 0 has
    the boxes and computes it, class by class, and all ranks meet between any two. Collective."""
    job, classes, rows = subject.job, subject.classes, []
    if job.world.is_main:
        if kind == "bbox" and settings.rule != "coco":
            judge: CocoPrecision | VocPrecision = VocPrecision(there, found, settings.rule)
        else:
            judge = CocoPrecision(there, found, classes, kind)
    for number in range(classes):
        job.safe_point(f"average precision, {kind}", number, classes)
        if job.world.is_main:
            rows.append(judge.of_class(number).tolist())
    job.safe_point(f"average precision, {kind}", classes, classes)
    return np.array(job.world.broadcast(rows))


def _whole(image: Image.Image, sample: int, epoch: int) -> np.ndarray:
    """uint8 [3, H, W], at the size stored: it is resized on the device."""
    return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def _nothing(device: torch.device, masks: bool) -> dict[str, torch.Tensor]:
    target = {"boxes": torch.zeros(0, 4, device=device), "labels": torch.zeros(0, dtype=torch.int64, device=device)}
    return target | ({"masks": torch.zeros(0, BLANK, BLANK, dtype=torch.uint8, device=device)} if masks else {})
