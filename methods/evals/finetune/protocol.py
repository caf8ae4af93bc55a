"""The whole network and a linear classifier on it, trained with labels (thesis Tables 4.1, 5.7, 5.8; SMoG, Table 4)."""

import copy
import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from methods import backbones
from methods.augment.distorted import Distortion
from methods.augment.mixing import Mixing, partners
from methods.augment.spec import interpolation_of
from methods.augment.views import TrainView
from methods.backbones.dropout import DropPath, begin_pass, begin_step
from methods.backbones.spec import GREY_MEAN, GREY_STD, RGB_MEAN, RGB_STD
from methods.data.loader import Batch, Request
from methods.data.sampler import Permutation, shares
from methods.engine import features
from methods.evals.finetune.spec import DROPS, FACTOR, FLOOR, START, WARMUP, Finetune, Tuning
from methods.evals.finetune.views import TuningView
from methods.evals.fit import Fit
from methods.evals.logistic.protocol import accuracy
from methods.evals.subject import Subject
from methods.evals.subsets import agreed, digest_of
from methods.parts.batchnorm import synchronise
from methods.parts.optim import UNDECAYED, parameter_groups
from methods.parts.schedules import cosine, linear

STAGE = "fine-tuning"
SPREAD = 0.02  # standard deviation of a classifier's weights, as DeiT draws them


class Tuned(nn.Module):
    """uint8 [B, C, H, W], or mixtures of them, float -> logits float32 [B, classes]."""

    def __init__(self, trunk: nn.Module, classes: int):
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(trunk.feature_dim, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.trunk(images)
        with torch.autocast(found.device.type, enabled=False):
            return self.head(found.float())


def score(subject: Subject, settings: Finetune) -> dict[str, float]:
    """Accuracies in percent on the test split, `top1` and `top5`, after the last epoch. The backbone that is judged
    stays as it is. Batch statistics are those of the whole batch, as in SwAV's released code.

    Collective; raises Stopped, with what was learnt kept, Diverged, and InputError where the images of a step do not
    share out to the ranks.
    """
    among, images = agreed(subject, settings), len(subject.splits["train"])
    ids = np.arange(images) if among is None else among
    recipe = settings.chosen(len(ids) / images)
    batch = _batch(subject, settings, recipe, len(ids))
    per_epoch = len(ids) // batch
    network = _network(subject, recipe)
    fit = Fit(subject, settings.name, network, _optimizer(network, recipe, batch))
    key = [vars(settings), batch, digest_of(among)]
    fit.run(
        per_epoch * recipe.epochs,
        functools.partial(_batches, subject, recipe, ids, batch),
        functools.partial(_loss, subject, recipe, network, batch),
        lambda step: _share(recipe, step, per_epoch),
        key=key,
        stage=STAGE,
    )
    network.eval()
    key.append(features.digest_of(network.state_dict()))  # a GPU does not learn the very same twice
    logits, numbers = subject.extracted("test", network, key, work=f"{settings.name} test", width=subject.classes)
    top1, top5 = accuracy(subject, nn.Identity(), logits, subject.labels("test", numbers))
    return {"top1": top1, "top5": top5}


def _batch(subject: Subject, settings: Finetune, recipe: Tuning, images: int) -> int:
    """Images a step."""
    job = subject.job
    batch = settings.shared(recipe, job.world.size, images)
    if batch < recipe.batch:
        said = f"finetune: a step takes {batch} images in place of {recipe.batch}"
        job.notice(f"{said}: there are {images} to learn from, and {job.world.size} ranks")
    return batch


def _network(subject: Subject, recipe: Tuning) -> Tuned:
    """On the device, ready to train: all of it learns."""
    job = subject.job
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed_for("finetune classifier"))
        trunk = copy.deepcopy(subject.backbone).requires_grad_()
        for name, module in backbones.build(job.config.backbone, drop_path=recipe.drop_path).named_modules():
            if isinstance(module, DropPath):  # which the backbone that is judged goes without
                trunk.set_submodule(name, module)
        network = Tuned(trunk, subject.classes)
        if recipe.optimizer == "adamw":
            nn.init.trunc_normal_(network.head.weight, std=SPREAD)
            nn.init.zeros_(network.head.bias)
    return synchronise(network.to(job.world.device), job.world, job.world.size).train()


def _optimizer(network: Tuned, recipe: Tuning, batch: int) -> torch.optim.Optimizer:
    """The trunk and the classifier, each at its own rate; in neither decay biases and norms."""
    scale = batch / recipe.of if recipe.of else 1.0
    groups = [
        {**group, "lr": rate * scale}
        for module, rate in ((network.trunk, recipe.rate), (network.head, recipe.head_rate))
        for group in parameter_groups([module], weight_decay=recipe.weight_decay, exempt=UNDECAYED)
    ]
    return torch.optim.AdamW(groups) if recipe.optimizer == "adamw" else torch.optim.SGD(groups, lr=0.0, momentum=0.9)


def _share(recipe: Tuning, step: int, per_epoch: int) -> float:
    """Of the rates, at a step from 0 on: SwAV's falls in steps of whole epochs, DeiT's warms up and is a cosine."""
    epoch = step // per_epoch
    if recipe.optimizer == "sgd":
        return FACTOR ** sum(epoch >= round(drop * recipe.epochs) for drop in DROPS)
    warmup, total = min(WARMUP, recipe.epochs // 2) * per_epoch, recipe.epochs * per_epoch
    if step < warmup:
        return linear(step, warmup, START, 1.0)
    return cosine(step - warmup, total - warmup, 1.0, FLOOR)


def _batches(subject: Subject, recipe: Tuning, ids: np.ndarray, batch: int, first: int) -> Iterator[Batch]:
    """This rank's part of the batch of each step from `first` on: functions of (seed, epoch, sample)."""
    job, world = subject.job, subject.job.world
    per_epoch = len(ids) // batch
    crops = TrainView(job.seed_for("finetune view"), job.config.image_size, recipe.crop_scale)
    distortion = None
    if recipe.rand_augment or recipe.erasing:
        given = recipe.rand_augment, recipe.erasing, "imagenet", interpolation_of(job.config)
        distortion = Distortion(*given)

    def requests() -> Iterator[Request]:
        for epoch in range(first // per_epoch, recipe.epochs):
            order = Permutation(len(ids), job.seed_for("finetune", epoch))
            todo = range(first % per_epoch if epoch == first // per_epoch else 0, per_epoch)
            placed = {"rank": world.rank, "world_size": world.size, "accumulation": 1, "per_rank": batch // world.size}
            yield from (Request(ids[places], epoch, {}) for places in shares(order, todo, **placed))

    return job.load(TuningView(crops, distortion), requests(), dataset=subject.splits["train"])


def _loss(subject: Subject, recipe: Tuning, network: Tuned, batch: int, data: Batch, step: int) -> torch.Tensor:
    """What this rank's images give to the mean cross-entropy over the batch."""
    job, device = subject.job, subject.job.world.device
    images, labels = data.images.to(device, non_blocking=True), subject.labels("train", data.ids.numpy()).to(device)
    begin_step([network], lambda number: job.seed_for("finetune dropout", step, number))
    begin_pass([network], (job.world.rank * len(images), len(images), batch))
    smoothing = {"label_smoothing": recipe.smoothing, "reduction": "none"}
    if recipe.together == 1:
        return cross_entropy(network(images), labels, **smoothing).sum() / batch
    mixing = Mixing(job.seed_for("finetune mixing"), recipe.mixup, recipe.cutmix, 0.5)
    first = job.world.rank * len(images) // 2
    (mixed,), kept = mixing([_normalised(images)], step, range(first, first + len(images) // 2))
    logits = network(mixed)
    losses = kept[0] * cross_entropy(logits, labels, **smoothing)
    losses = losses + (1 - kept[0]) * cross_entropy(logits, partners(labels), **smoothing)
    return losses.sum() / batch


def _normalised(images: torch.Tensor) -> torch.Tensor:
    """uint8 [B, C, H, W] -> float32, as backbones take it."""
    means, stds = (RGB_MEAN, RGB_STD) if images.shape[1] == 3 else ((GREY_MEAN,), (GREY_STD,))
    mean, std = (torch.tensor(each, device=images.device).view(-1, 1, 1) for each in (means, stds))
    return (images.float() / 255 - mean) / std
