"""How well frozen features trace copies to their originals (thesis Table 5.4)."""

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import nn

from launcher.errors import InputError
from methods.backbones.spec import BACKBONES
from methods.data.dataset import CopyDataset, ImageDataset
from methods.evals.copies.spec import Copies
from methods.evals.copies.whitening import whitened
from methods.evals.dense import mapper
from methods.evals.described import described, normalised, whole_patches
from methods.evals.retrieval.ranking import trapezoids
from methods.evals.subject import Subject, percent

BATCH = 16  # images at once, as published
SMALLEST = 1e-6  # that a value of a map is taken to be before it is raised to a power


def score(subject: Subject, settings: Copies) -> dict[str, float]:
    """`map`, mean average precision over the copies, in percent: each searches all originals and distractors for its
    own. Features are whitened by those of the train images; without any they are not. `unwhitened` is the same with
    features as they are.

    Collective; raises Stopped, with what is done kept, BrokenImage where an original or a copy is no image, and
    InputError where there is no copy, or more of the others are none than `max_broken` allows.
    """
    job, side = subject.job, settings.size
    train, test = subject.splits["train"], subject.splits["test"]
    if not len(test.originals):
        raise InputError.of("eval_data", ..., "there is no copy", "give a data set with copies")
    if job.world.is_main and not len(train):
        job.notice("copies: there are no train images, and so the features are not whitened")
    key = {"size": side, "power": settings.power}
    parts: list[np.ndarray | None] = []
    with encoder(job.config.backbone, subject.backbone, settings.power) as encode:
        others = np.setdiff1d(np.arange(test.database), np.concatenate(test.originals))  # that nothing was copied from
        for split, dataset, spare in (("train", train, range(len(train))), ("test", test, {*others.tolist()})):
            parts.append(
                described(
                    subject,
                    dataset,
                    lambda number, dataset=dataset: _square(dataset, number, side),
                    encode,
                    work=f"{settings.name} {split}",
                    key=key,
                    width=2 * subject.backbone.feature_dim,
                    batch=BATCH,
                    spare=spare,
                )
                if len(dataset)
                else None
            )
    scores = None
    if job.world.is_main:
        learnt, features = parts
        plain = percent(traced(features, test, settings.found))
        scores = {"map": plain, "unwhitened": plain}
        if learnt is not None:
            known = learnt[np.isfinite(learnt).all(1)]
            scores["map"] = percent(traced(whitened(features, known), test, settings.found))
    return job.world.broadcast(scores)


def traced(features: np.ndarray, dataset: CopyDataset, found: int) -> float:
    """Mean over the copies of the average precision of their originals among the first `found` of all, by cosine.
    features: float64 [n, d]; one that is no numbers is found last. From 0 to 1."""
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    database, copies = features[: dataset.database], features[dataset.database :]
    values = []
    for copy, originals in zip(copies, dataset.originals, strict=True):
        order = np.argsort(-(database @ copy), kind="stable")[:found]
        values.append(trapezoids(np.flatnonzero(np.isin(order, originals)), len(originals)))
    return float(np.mean(values))


@contextlib.contextmanager
def encoder(backbone: str, network: nn.Module, power: float) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """[B, C, H, W] -> float32 [B, d + d']: the backbone's feature, a transformer's class token, beside the generalised
    mean of its last map (GeM: Radenovic et al. 2018b)."""
    if BACKBONES[backbone].class_token:

        def of_tokens(images: torch.Tensor) -> torch.Tensor:
            tokens = network.trunk.forward_features(network.input(whole_patches(images, backbone))).float()
            return torch.cat([tokens[:, 0], generalised_mean(tokens[:, 1:].transpose(1, 2)[..., None], power)], 1)

        yield of_tokens
        return
    caught: list[torch.Tensor] = []
    hook = network.register_forward_hook(lambda _module, _given, output: caught.append(output))
    try:
        with mapper(backbone, network) as mapped:

            def of_map(images: torch.Tensor) -> torch.Tensor:
                caught.clear()
                last = mapped(whole_patches(images, backbone))
                return torch.cat([caught[0].float(), generalised_mean(last, power)], 1)

            yield of_map
    finally:
        hook.remove()


def generalised_mean(maps: torch.Tensor, power: float) -> torch.Tensor:
    """[B, d, h, w] -> [B, d]: the mean of the values to that power, to one over it; negative ones count as none."""
    return maps.clamp(min=SMALLEST).pow(power).mean((2, 3)).pow(1 / power)


def _square(dataset: ImageDataset, number: int, side: int) -> torch.Tensor:
    """The whole image, made square."""
    return normalised(dataset.image(number).resize((side, side), Image.Resampling.BICUBIC))
