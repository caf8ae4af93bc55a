"""Features of all ranks on one, and their nearest neighbours there."""

from collections.abc import Callable, Sequence

import torch

from methods.engine.features import extract, refuse_unless_finite
from methods.engine.job import Job
from methods.evals.knn.search import Bank, chunks, search
from methods.evals.knn.spec import KNN


def collected(job: Job, encode: Callable[[torch.Tensor], torch.Tensor], stage: str) -> tuple[Bank | None, Bank | None]:
    """(train, test) banks of all ranks on rank 0, None elsewhere; the ranks share the extraction. Collective; raises
    Diverged where features are no finite numbers."""
    banks = []
    for dataset in job.labelled:
        features, ids = extract(job, dataset, encode, stage=stage)
        refuse_unless_finite(job, features, stage)
        banks.append(gathered(job, features, torch.from_numpy(dataset.labels[ids])))
    return tuple(banks)


def gathered(job: Job, features: torch.Tensor, labels: torch.Tensor) -> Bank | None:
    """The features of all ranks with their labels on rank 0, None elsewhere. Collective."""
    rows, truth = job.world.collect(features), job.world.collect(labels)
    return Bank(rows.numpy(), truth.numpy()) if job.world.is_main else None


def searched(
    job: Job,
    banks: tuple[Bank | None, Bank | None],
    neighbours: Sequence[int],
    *,
    temperature: float = KNN.temperature,
    stage: str,
) -> list[float]:
    """k-NN accuracies in percent, by number of neighbours. Rank 0 searches; the others meet it between its chunks, so
    that none waits long. Collective; raises Stopped."""
    here, right, queries = job.world.is_main, 0, 1
    if here:
        classes, queries = len(job.labelled[0].classes), len(banks[1].labels)
        found = search(*banks, neighbours=neighbours, classes=classes, temperature=temperature)
    total = job.world.broadcast(len(chunks(*banks)) if here else 0)
    for number in range(total):
        job.safe_point(stage, number, total)
        right = right + next(found) if here else 0
    return [round(100 * share, 2) for share in job.world.broadcast((right / queries).tolist() if here else [])]
