"""What is judged while a run trains and at its end: k-NN of the backbone, beside the untrained one and raw pixels."""

from collections.abc import Callable

import torch

from launcher.spec import RunSpec
from methods import backbones
from methods.backbones.sobel import GREY_MEAN, GREY_STD
from methods.data import ImageDataset, build
from methods.engine import Trainer
from methods.evals.knn import Bank, accuracy
from methods.features import extract
from methods.job import Job

LARGEST_BANK = 2_000_000  # images whose features rank 0 gathers; ImageNet has 1.3 million


def evaluate(job: Job, trainer: Trainer, step: int) -> None:
    """Write `knn` and the trainer's own figures into the ledger. Collective. Without labels there is no k-NN."""
    own = trainer.evaluate(step)
    scores = _knn(job, trainer)
    if not job.world.is_main:
        return
    for protocol, values in {"knn": scores, **own}.items():
        if values:
            job.ledger.write("eval", protocol=protocol, step=step, scores=values)
            numbers = {f"{protocol}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
            job.reporter.log(step, **numbers)
            print(f"step {step}: {protocol} {values}", flush=True)


def _knn(job: Job, trainer: Trainer) -> dict[str, float]:
    if job.labelled is None or len(job.labelled[0]) > LARGEST_BANK:
        if job.world.is_main:
            print(f"k-NN is left out: no labels in data or eval_data, or over {LARGEST_BANK:,} of them", flush=True)
        return {}
    train, test = job.labelled
    scores = {"trained": _score(job, train, test, trainer.backbone, "k-NN")}
    known = next((e["scores"] for e in job.run.events() if e["event"] == "eval" and e["protocol"] == "knn"), None)
    known = job.world.broadcast(known)
    if known:  # what does not change was measured before
        return scores | {key: known[key] for key in ("untrained", "raw_pixels")}
    torch.manual_seed(job.seed_for("network"))
    untrained = backbones.build(job.config.backbone, dropout=job.config.dropout).to(job.world.device).eval()
    scores["untrained"] = _score(job, train, test, untrained, "k-NN untrained")
    scores["raw_pixels"] = _score(job, train, test, _pixels, "k-NN raw pixels")
    return scores


def labelled(spec: RunSpec, dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset] | None:
    """The labelled (train, test) splits that k-NN uses: of eval_data where given, else of the training data `dataset`.

    None where there are no labels or no test split. Raises ValueError where eval_data cannot be used.
    """
    train = dataset if spec.eval_data is None else build(spec.eval_data, "train")
    if train.labels is None or not len(train):
        return None
    test = build(spec.eval_data or spec.data, "test")
    return (train, test) if len(test) else None


def _pixels(images: torch.Tensor) -> torch.Tensor:
    """Standardised as the networks' input is: cosines between all-positive vectors would say little."""
    return ((images.float() / 255 - GREY_MEAN) / GREY_STD).flatten(1)


def _score(
    job: Job, train: ImageDataset, test: ImageDataset, encode: Callable[[torch.Tensor], torch.Tensor], stage: str
) -> float:
    """k-NN accuracy in percent; the ranks share the extraction, rank 0 searches."""
    banks = []
    for dataset in (train, test):
        features, ids = extract(job, dataset, encode, stage=stage)
        gathered = job.world.collect(features), job.world.collect(torch.from_numpy(ids))
        if job.world.is_main:
            banks.append(Bank(gathered[0].numpy(), dataset.labels[gathered[1].numpy()]))
    result = 0.0
    if job.world.is_main:
        result = accuracy(*banks, neighbours=job.config.knn_neighbours, classes=len(train.classes))
    return round(100 * job.world.broadcast(result), 2)
