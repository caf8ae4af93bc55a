"""What is judged while a run trains and at its end: k-NN of the backbone, beside the untrained one and raw pixels."""

import contextlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from launcher.errors import Diverged
from launcher.run.folder import RunDir
from launcher.runtime.dist import World
from launcher.spec.runspec import RunSpec
from methods import backbones
from methods.augment.views import CentreView
from methods.backbones.spec import GREY_MEAN, GREY_STD
from methods.data import build
from methods.data.dataset import ImageDataset
from methods.data.loader import Request
from methods.engine.collapse import collapse, rank_of_moments
from methods.engine.collapse_watch import last_word, say_health
from methods.engine.job import Job
from methods.engine.trainer import Trainer
from methods.evals.features import BATCH, extract, refuse_unless_finite
from methods.evals.knn import TEMPERATURE, Bank, chunks, search
from methods.evals.room import pixels_too_large, too_large
from methods.evals.spec import KNN

ADAPTED_TO = 8192  # images, at most
BASELINES = ("untrained", "untrained_adapted", "raw_pixels")
RANKED = 2048  # images whose features' rank is looked at


def evaluate(job: Job, trainer: Trainer, step: int) -> None:
    """Write `knn` and the trainer's own figures into the ledger. Collective. Without labels there is no k-NN."""
    own = trainer.evaluate(step)

    def so_far(scores: Mapping[str, float]) -> None:
        for protocol, values in {"knn": scores, **own}.items():
            if values:
                job.ledger.write("scored", protocol=protocol, step=step, scores=values)

    scores = knn(job, trainer.backbone, known=_measured(job.world, job.run), so_far=so_far)
    for protocol, values in {"knn": scores, **own}.items():
        if values and job.world.is_main:
            job.ledger.write("eval", protocol=protocol, step=step, scores=values)
            numbers = {f"{protocol}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
            job.reporter.log(step, **numbers)
            print(f"step {step}: {protocol} {values}", flush=True)
    if scores:
        watch_rank(job, step, scores["rank"])


def watch_rank(job: Job, step: int, rank: float) -> None:
    """Features that are all alike are a collapse, whatever the outputs look like; said when it begins and ends.
    Collective. Raises Diverged where the spec says stop."""
    found = collapse(2, rank=rank)
    before = job.world.broadcast(last_word(job, "features") if job.world.is_main else "")
    if bool(found) != bool(before):
        say_health(job, step, "features", f"features collapsed at step {step}: {found}" if found else "")
    if found and job.config.on_collapse == "stop":
        raise Diverged(f"features collapsed at step {step}: {found}. Change the recipe, as a new run")


def knn(
    job: Job,
    backbone: torch.nn.Module,
    *,
    known: Mapping[str, float],
    settings: KNN | None = None,
    banks: tuple[Bank, Bank] | None = None,
    so_far: Callable[[Mapping[str, float]], None] = lambda scores: None,
) -> dict[str, float]:
    """k-NN accuracies in percent of `backbone`: `trained` with the run's number of neighbours and `kN` with N of them;
    the effective `rank` of its features; and accuracies of what it must beat, unless `known` holds them already.
    Collective; raises Stopped. Empty without labels, or where rank 0's machine cannot hold the features; without
    `raw_pixels` where it is they that are too large.

    banks: on rank 0, (train, test) features of `backbone` where they are at hand; None on the other ranks.
    so_far: called on rank 0 with the scores of `backbone` before the baselines are begun: whatever ends those, in an
    hour of other networks and images, these stand.
    """
    why = "no labels in data or eval_data" if job.labelled is None else too_large(job, backbone.feature_dim)
    if why:
        _left_out(job, "k-NN", why)
        return {}
    settings = settings or KNN()
    wanted = [job.config.knn_neighbours, *settings.neighbours]
    banks = banks or collected(job, backbone, "k-NN")
    own, *several = searched(job, banks, wanted, temperature=settings.temperature, stage="k-NN, search")
    scores = {"trained": own, **{f"k{k}": score for k, score in zip(settings.neighbours, several, strict=True)}}
    scores["rank"] = job.world.broadcast(_rank(banks[1]) if job.world.is_main else 0.0)
    del banks  # each baseline has some as large
    baselines = {name: value for name, value in known.items() if name in BASELINES}
    if baselines:  # what does not change was measured before
        return baselines | scores
    if job.world.is_main:
        so_far(dict(scores))

    def score(encode: Callable[[torch.Tensor], torch.Tensor], stage: str) -> float:
        found, searching = collected(job, encode, stage), f"{stage}, search"
        return searched(job, found, wanted[:1], temperature=settings.temperature, stage=searching)[0]

    torch.manual_seed(job.seed_for("network"))
    untrained = backbones.build(job.config.backbone, dropout=job.config.dropout).to(job.world.device).eval()
    scores["untrained"] = score(untrained, "k-NN untrained")
    _adapt_statistics(job, untrained)
    scores["untrained_adapted"] = score(untrained, "k-NN untrained, adapted")
    why = pixels_too_large(job)
    if why:
        _left_out(job, "k-NN of raw pixels", why)
    else:
        scores["raw_pixels"] = score(_pixels, "k-NN raw pixels")
    return scores


def _left_out(job: Job, what: str, why: str) -> None:
    """Said in the log, and once on the screen where there are labels and so a score is expected."""
    said = f"{what} is left out: {why}"
    if job.world.is_main:
        print(said, flush=True)
        if job.labelled is not None and said not in job.notices:
            job.notices.append(said)
            job.reporter.progress(force=True, notices=job.notices)


def _measured(world: World, run: RunDir) -> dict[str, float]:
    """What the first k-NN of the run's own training found. Collective."""
    found: dict[str, float] = {}
    if world.is_main:
        own = (e["scores"] for e in run.history().all("eval") if e["protocol"] == "knn" and not e.get("by"))
        found = next(own, {})
    return world.broadcast(found)


def labelled(spec: RunSpec, dataset: ImageDataset | None) -> tuple[ImageDataset, ImageDataset] | None:
    """The labelled (train, test) splits that k-NN uses: of eval_data where given (`dataset` may then be None), else of
    the training data `dataset`.

    None where there are no labels or no test split. Raises ValueError where eval_data cannot be used.
    """
    train = dataset if spec.eval_data is None else build(spec.eval_data, "train")
    if train.labels is None or not len(train):
        return None
    test = build(spec.eval_data or spec.data, "test")
    return (train, test) if len(test) and test.labels is not None else None


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
    stream = job.load(CentreView(job.config.image_size), requests, dataset=dataset, drop=True)
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


def collected(job: Job, encode: Callable[[torch.Tensor], torch.Tensor], stage: str) -> tuple[Bank | None, Bank | None]:
    """(train, test) banks of all ranks on rank 0, None elsewhere; the ranks share the extraction. Collective; raises
    Diverged where features are no finite numbers."""
    banks = []
    for dataset in job.labelled:
        features, ids = extract(job, dataset, encode, stage=stage)
        refuse_unless_finite(job, features, stage)
        banks.append(gathered(job, dataset, features, ids))
    return tuple(banks)


def gathered(job: Job, dataset: ImageDataset, features: torch.Tensor, ids: np.ndarray) -> Bank | None:
    """The features of all ranks with their labels on rank 0, None elsewhere. Collective."""
    rows, where = job.world.collect(features), job.world.collect(torch.from_numpy(ids))
    return Bank(rows.numpy(), dataset.labels[where.numpy()]) if job.world.is_main else None


def searched(
    job: Job,
    banks: tuple[Bank | None, Bank | None],
    neighbours: Sequence[int],
    *,
    temperature: float = TEMPERATURE,
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
