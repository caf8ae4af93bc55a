"""How well each stage of a backbone serves a linear classifier, or its nearest neighbours."""

import torch

from launcher.errors import InputError
from methods.evals.knn.banks import gathered, searched
from methods.evals.layers.spec import Layers
from methods.evals.layers.stages import encoder
from methods.evals.logistic import protocol as logistic
from methods.evals.subject import Subject

Labelled = tuple[torch.Tensor, torch.Tensor]  # features of a split [n, width], labels [n]


def score(subject: Subject, settings: Layers) -> dict[str, float]:
    """Stage -> accuracy in percent on the test split, in the order of the backbone; all stages are extracted together.
    Collective; raises Stopped."""
    job = subject.job
    made = {}
    with encoder(job.config.backbone, subject.backbone) as (encode, widths):
        # One image tells what the stages are: a start that finds all features on disk sends none through.
        channels, size = job.labelled[0].channels, job.config.image_size
        with torch.no_grad(), job.autocast():
            total = encode(torch.zeros(1, channels, size, size, dtype=torch.uint8, device=job.world.device)).shape[1]
        wanted = settings.stages or [*widths]
        for stage in wanted:
            if stage not in widths:
                fix = f"use {', '.join(widths)}"
                raise InputError.of("layers.stages", stage, "the backbone has no such stage", fix)
        for split in subject.splits:
            made[split] = subject.extracted(split, encode, "stages", work=f"layers {split}", width=total)
    scores, first = {}, 0
    for stage, width in widths.items():
        if stage in wanted:
            found = [(f[:, first : first + width], subject.labels(split, ids)) for split, (f, ids) in made.items()]
            scores[stage] = _of_stage(subject, settings, stage, *found)
        first += width
    return scores


def _of_stage(subject: Subject, settings: Layers, stage: str, train: Labelled, test: Labelled) -> float:
    if settings.probe == "knn":
        banks = [gathered(subject.job, features.contiguous(), labels) for features, labels in (train, test)]
        return searched(subject.job, banks, [settings.neighbours], stage=f"k-NN of {stage}")[0]
    how = {"key": vars(settings), "work": "layers", "name": stage, "stage": f"probe of {stage}"}
    found, _ = logistic.kept_fit(subject, settings, *train, **how)
    return logistic.accuracy(subject, found, *test)[0]
