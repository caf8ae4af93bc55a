"""What a classifier is judged by, beside the k-NN of its backbone: how often it is right."""

from collections.abc import Callable

import torch

from methods.engine.features import extract
from methods.engine.job import Job


def top1(job: Job, logits: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
    """Percent of the test images, each a centre crop, whose largest logit is that of their label; nothing where there
    are none, or where their classes are others than those that were trained on.

    logits: uint8 [B, C, H, W] on the device -> [B, K]. Collective; raises Stopped between batches.
    """
    if job.labelled is None or job.labelled[1].classes != job.dataset.classes:
        return {}
    test = job.labelled[1]

    def guess(images: torch.Tensor) -> torch.Tensor:
        return logits(images).argmax(1, keepdim=True).float()  # which holds any number of classes there are

    guesses, ids = extract(job, test, guess, stage="classifying")
    right = int((guesses[:, 0].numpy() == test.labels[ids]).sum())
    right, images = (sum(each) for each in zip(*job.world.gather((right, len(ids))), strict=True))
    return {"top1": round(100 * right / max(1, images), 2)}
