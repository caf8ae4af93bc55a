"""How well frozen features find images of the same landmark (thesis Table 5.3)."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from launcher.errors import InputError
from methods.data.dataset import QueryDataset
from methods.evals.described import described, normalised, whole_patches
from methods.evals.retrieval.ranking import judged
from methods.evals.retrieval.spec import Retrieval
from methods.evals.subject import Subject, percent


def score(subject: Subject, settings: Retrieval) -> dict[str, float]:
    """Means over the queries, in percent: `medium` and `hard` average precision, and precision among the first 10,
    `medium_p10` and `hard_p10`. Medium counts what is easy or hard to find; hard what is hard, and what is easy is junk
    then. A query without any is left out.

    Images go through one at a time, as each has its own size. Collective; raises Stopped, with what is done kept,
    BrokenImage where an image is none, and InputError where nothing is relevant to any query.
    """
    dataset: QueryDataset = subject.splits["test"]
    features = described(
        subject,
        dataset,
        lambda number: _pixels(dataset, number, settings),
        several(subject.backbone, settings.scales, subject.job.config.backbone),
        work=settings.name,
        key=vars(settings),
        width=subject.backbone.feature_dim,
        batch=1,
    )
    scores = None
    if features is not None:
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
        scores = searched(features, dataset)
    return _checked(subject.job.world.broadcast(scores))


def searched(features: np.ndarray, dataset: QueryDataset) -> dict[str, float | None]:
    """Scores as `score` has them, of features of unit length, float64 [n, d]; None where no query has any."""
    found: dict[str, list] = {"medium": [], "hard": []}
    for query in dataset.queries:
        alike = features[: dataset.database] @ features[query.image]
        order = np.argsort(-alike, kind="stable")
        found["medium"].append(judged(order, np.concatenate([query.easy, query.hard]), query.junk))
        found["hard"].append(judged(order, query.hard, np.concatenate([query.junk, query.easy])))
    scores: dict[str, float | None] = {}
    for part, which in (("", 0), ("_p10", 1)):
        for name, each in found.items():
            values = [one[which] for one in each if one is not None]
            scores[name + part] = percent(np.mean(values)) if values else None
    return scores


def several(
    network: Callable[[torch.Tensor], torch.Tensor], scales: list[float], backbone: str
) -> Callable[[torch.Tensor], torch.Tensor]:
    """[B, C, H, W] -> [B, d]: the sum of the features of images in each of `scales`, bilinear, as published."""

    def encode(images: torch.Tensor) -> torch.Tensor:
        total = None
        for scale in scales:
            scaled = images
            if scale * min(images.shape[2:]) < 1:
                height, width = images.shape[2:]
                reason = f"nothing is left of an image of {width} x {height} pixels"
                raise InputError.of("retrieval.scales", scale, reason, "give larger ones")
            if scale != 1:
                scaled = interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
            found = network(whole_patches(scaled, backbone)).float()
            total = found if total is None else total + found
        return total

    return encode


def _pixels(dataset: QueryDataset, number: int, settings: Retrieval) -> torch.Tensor:
    """The whole image, or of a query what it looks for; never enlarged."""
    image = dataset.image(number)
    if settings.crop and number >= dataset.database:
        box = dataset.queries[number - dataset.database].box
        image = image if box is None else image.crop(_within(box, image.size))
    image.thumbnail((settings.size, settings.size), Image.Resampling.LANCZOS)
    return normalised(image)


def _within(box: tuple[float, ...], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Whole pixels of an image, one at least."""
    left, top, right, bottom = (round(each) for each in box)
    left, top = (min(max(0, at), side - 1) for at, side in zip((left, top), size, strict=True))
    right, bottom = (
        min(max(at + 1, end), side) for at, end, side in zip((left, top), (right, bottom), size, strict=True)
    )
    return left, top, right, bottom


def _checked(scores: dict[str, float | None]) -> dict[str, float]:
    if scores["medium"] is None:
        raise InputError.of("eval_data", ..., "nothing is relevant to any query", "give another data set")
    return {name: value for name, value in scores.items() if value is not None}
