"""k-NN of a backbone's features, beside the untrained backbone and raw pixels, which it must beat (thesis 5.3.2)."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from methods import backbones
from methods.augment.views import CentreView
from methods.backbones.spec import GREY_MEAN, GREY_STD
from methods.data.loader import Request
from methods.engine.collapse import rank_of_moments
from methods.engine.features import BATCH
from methods.engine.job import Job
from methods.evals.knn.banks import collected, gathered, searched
from methods.evals.knn.search import Bank
from methods.evals.knn.spec import KNN
from methods.evals.room import pixels_too_large
from methods.evals.subject import Subject
from methods.evals.subsets import chosen

ADAPTED_TO = 8192  # images, at most
BASELINES = ("untrained", "untrained_adapted", "raw_pixels")
RANKED = 2048  # images whose features' rank is looked at


def score(subject: Subject, settings: KNN) -> dict[str, float]:
    """k-NN accuracies in percent of the backbone: `trained` with the run's number of neighbours and `kN` with N of
    them; the effective `rank` of its features; and accuracies of what it must beat, unless `subject.known` holds them
    already, or only some of the images teach. Without `raw_pixels` where it is they that are too large. Collective;
    raises Stopped, and InputError as `subsets.chosen`.

    `subject.so_far` is told the scores of the backbone before the baselines are begun: whatever ends those, in an hour
    of other networks and images, these stand.
    """
    job, known = subject.job, subject.known.get(settings.name, {})
    wanted = [job.config.knn_neighbours, *settings.neighbours]
    taught = chosen(subject, settings)
    few = taught.total
    if too_many := sorted({k for k in wanted if k > few}):
        job.notice(f"k-NN: there are {few} images to learn from, and all vote for k = {', '.join(map(str, too_many))}")
    banks = tuple(gathered(job, *each) for each in ((taught.features, taught.labels), subject.features("test")))
    own, *several = searched(job, banks, wanted, temperature=settings.temperature, stage="k-NN, search")
    scores = {"trained": own, **{f"k{k}": found for k, found in zip(settings.neighbours, several, strict=True)}}
    scores["rank"] = job.world.broadcast(_rank(banks[1]) if job.world.is_main else 0.0)
    some = taught.digest is not None
    del banks, taught  # each baseline has some as large
    subject.let_go()
    if some:  # what it must beat is measured with all images
        return scores
    baselines = {name: value for name, value in known.items() if name in BASELINES}
    if baselines:  # what does not change was measured before
        return baselines | scores
    if job.world.is_main:
        subject.so_far(dict(scores))

    def baseline(encode: Callable[[torch.Tensor], torch.Tensor], stage: str) -> float:
        found, searching = collected(job, encode, stage), f"{stage}, search"
        return searched(job, found, wanted[:1], temperature=settings.temperature, stage=searching)[0]

    torch.manual_seed(job.seed_for("network"))
    untrained = backbones.build(job.config.backbone, dropout=job.config.dropout).to(job.world.device).eval()
    scores["untrained"] = baseline(untrained, "k-NN untrained")
    _adapt_statistics(job, untrained)
    scores["untrained_adapted"] = baseline(untrained, "k-NN untrained, adapted")
    why = pixels_too_large(job)
    if why:
        job.notice(f"k-NN of raw pixels is left out: {why}")
    else:
        scores["raw_pixels"] = baseline(_pixels, "k-NN raw pixels")
    return scores


@torch.no_grad()
def _adapt_statistics(job: Job, network: torch.nn.Module) -> None:
    """Give the untrained network the batch statistics of the data. At initialisation they are mean 0 and variance 1,
    which alone costs it several points: this is the harder baseline. The same images on every rank.
    """
    network.train()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the plain mean over batches
    dataset = job.labelled[0]
    ids = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), ADAPTED_TO)).astype(np.int64))
    ids = np.random.default_rng(job.seed_for("adapt")).permutation(ids)  # folders lie in order of their classes
    requests = [Request(ids[i : i + BATCH], 0, {}) for i in range(0, len(ids), BATCH)]
    stream = job.load(CentreView.of(job.config, dataset), requests, dataset=dataset, drop=True)
    with contextlib.closing(stream):
        for batch in stream:
            if len(batch.ids) > 1:
                network(batch.images.to(job.world.device))
    network.eval()


def _rank(bank: Bank) -> float:
    """Effective rank of the features of at most RANKED images, spread over the split; 0 where all are 0."""
    chosen = np.unique(np.linspace(0, len(bank.features) - 1, RANKED).astype(np.int64))
    rows = torch.from_numpy(bank.features[chosen]).double()
    moments = rows.T @ rows if rows.shape[1] < len(rows) else rows @ rows.T  # the smaller one has the same values
    return round(float(rank_of_moments(moments).nan_to_num(0.0)), 2)


def _pixels(images: torch.Tensor) -> torch.Tensor:
    """Standardised as the networks' input is: cosines between all-positive vectors would say little."""
    return ((images.float() / 255 - GREY_MEAN) / GREY_STD).flatten(1)
