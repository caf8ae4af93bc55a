"""A fully convolutional network on a backbone learns the classes of pixels, and is judged on whole images (SMoG, 4.3,
Table 5)."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision.transforms.functional import resize

from launcher.errors import InputError
from methods.data.loader import Batch, Request
from methods.data.sampler import Permutation
from methods.evals.fit import Fit
from methods.evals.segmentation import network
from methods.evals.segmentation.confusion import counted, scores
from methods.evals.segmentation.spec import Segmentation
from methods.evals.segmentation.views import BEYOND, VOID, CropView, WholeView, WithPixels, background, scaled
from methods.evals.subject import Subject
from methods.parts.batchnorm import synchronise

POWER = 0.9  # of what is left of the training, in the schedule `poly`


def score(subject: Subject, settings: Segmentation) -> dict[str, Any]:
    """`miou`, `pixel_accuracy`, `mean_accuracy` and `iou_by_class` in percent, of all pixels of the test split that are
    of a class; the background is one where the data set judges it.

    A function of the seed: what the classifier begins with, the order of the images of (seed, epoch), their crops of
    (seed, epoch, image). Batch statistics are those of all ranks. Collective; raises Stopped, with what was learnt
    kept, Diverged, and InputError where the images of a step do not share out to the ranks.
    """
    job, train = subject.job, subject.splits["train"]
    names = (("background",) if background(train) else ()) + tuple(train.classes)
    settings.refuse_unshared(job.world.size)
    seed = job.seed_for("segmentation classifier")
    learner = network.build(job.config.backbone, subject.backbone, len(names), settings, seed)
    learner = synchronise(learner, job.world, job.world.size).train()
    optimizer = torch.optim.SGD(
        learner.parameters(), settings.rate, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    if len(train) < settings.batch:
        job.notice(f"segmentation: there are {len(train)} images to learn from, fewer than a batch of {settings.batch}")
    pixels = WithPixels(train)
    Fit(subject, settings.name, learner, optimizer).run(
        settings.steps,
        lambda first: _batches(subject, settings, pixels, first),
        lambda batch, _step: _loss(learner, batch, settings),
        lambda step: share_at(settings, step),
        key=vars(settings),
        stage="segmentation",
    )
    matrix = _judged(subject, learner.eval(), settings, len(names))
    if not matrix.sum():
        fix = "give images of which some show the classes"
        raise InputError.of("eval_data", ..., "no pixel of its test split is of a class", fix)
    return scores(matrix, names)


def share_at(settings: Segmentation, step: int) -> float:
    """Of the learning rate, at a step from 0 on."""
    if settings.schedule == "poly":
        return (1 - step / settings.steps) ** POWER
    return 0.1 ** sum(step >= drop for drop in settings.drops)


def _batches(subject: Subject, settings: Segmentation, dataset: WithPixels, first: int) -> Iterator[Batch]:
    """This rank's part of the batch of each step from `first` on. An epoch leaves out what fills no batch; where there
    are fewer images than a batch, it takes some of them twice."""
    job, world = subject.job, subject.job.world
    per_epoch = max(1, len(dataset) // settings.batch)
    view = CropView(
        job.seed_for("segmentation view"), settings.crop, tuple(settings.scale), settings.side, settings.flip
    )

    def requests() -> Iterator[Request]:
        for step in range(first, settings.steps):
            epoch, number = divmod(step, per_epoch)
            order = Permutation(len(dataset), job.seed_for("segmentation", epoch))
            places = np.arange(number * settings.batch, (number + 1) * settings.batch)[world.rank :: world.size]
            yield Request(order(places % len(dataset)), epoch, {})

    with contextlib.closing(job.load(view, requests(), dataset=dataset, drop=True)) as stream:
        for batch in stream:
            yield batch._replace(images=_filled(batch.images, settings.batch // world.size))


def _filled(images: torch.Tensor, count: int) -> torch.Tensor:
    """`count` of them: for one that cannot be read there is nothing but what lies beyond an image, so that ranks have
    equally many, of which the same is learnt however they share them."""
    if len(images) == count:
        return images
    beyond = torch.tensor(BEYOND, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
    return torch.cat([images, beyond.expand(count - len(images), *images.shape[1:])])


def _loss(learner: nn.Module, batch: Batch, settings: Segmentation) -> torch.Tensor:
    """Cross-entropy of this rank's pixels, over all pixels of the whole batch: void ones and those beyond an image are
    among these, and add nothing."""
    images, truth = batch.images[:, :3], batch.images[:, 3].long()
    logits = learner(images)["out"].float()
    return cross_entropy(logits, truth, ignore_index=VOID, reduction="sum") / (settings.batch * settings.crop**2)


@torch.no_grad()
def _judged(subject: Subject, learner: nn.Module, settings: Segmentation, classes: int) -> np.ndarray:
    """int64 [classes, classes]: pixels of class i taken for class j, of all images of the test split. Each rank takes
    its share, one image after the other. Collective; raises Stopped."""
    job, world, dataset = subject.job, subject.job.world, WithPixels(subject.splits["test"])
    mine = np.arange(len(dataset))[world.rank :: world.size]
    turns = math.ceil(len(dataset) / world.size)  # all ranks meet between any two
    matrix = torch.zeros(classes, classes, dtype=torch.int64, device=world.device)
    left_out = 0
    stream = job.load(
        WholeView(), (Request(mine[n : n + 1], 0, {}) for n in range(len(mine))), dataset=dataset, drop=True
    )
    with contextlib.closing(stream), job.autocast():
        for turn in range(turns):
            job.safe_point("segmentation, judging", turn, turns)
            batch = next(stream, None)
            if batch is None:
                continue
            left_out += len(batch.broken)
            for image in batch.images.to(world.device):
                matrix += counted(image[3], _classes(learner, image[:3], settings.side), classes)
    job.safe_point("segmentation, judging", turns, turns)
    if left_out := sum(world.gather(left_out)):
        job.notice(f"segmentation: {left_out} of {len(dataset)} images cannot be read, and are not counted")
    return subject.sum(matrix).cpu().numpy()


def _classes(learner: nn.Module, image: torch.Tensor, side: int | None) -> torch.Tensor:
    """int64 [H, W] of an image uint8 [3, H, W]."""
    height, width = image.shape[1:]
    if side:
        wide, high = scaled((width, height), side, 1.0)
        image = resize(image, [high, wide], antialias=True)
    logits = learner(image[None])["out"].float()
    if logits.shape[2:] != (height, width):
        logits = interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    return logits[0].argmax(0)
