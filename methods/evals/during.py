"""What is judged while a run trains and at its end: k-NN of the backbone, beside the untrained one and raw pixels."""

from collections.abc import Callable

import torch

from methods import backbones
from methods.backbones.sobel import GREY_MEAN, GREY_STD
from methods.data import ImageDataset, build
from methods.engine import Trainer
from methods.evals.knn import Bank, accuracy
from methods.features import extract
from methods.job import Job


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
    train, test = labelled(job)
    if train is None or test is None:
        if job.world.is_main:
            print("k-NN: no labels in data, and no eval_data; left out", flush=True)
        return {}
    scores = {"trained": _score(job, train, test, trainer.backbone, "k-NN")}
    known = next((e["scores"] for e in job.run.events() if e["event"] == "eval" and e["protocol"] == "knn"), None)
    known = job.world.broadcast(known)
    if known:  # what does not change was measured before
        return scores | {key: known[key] for key in ("untrained", "raw_pixels")}
    torch.manual_seed(job.seed_for(0))
    untrained = backbones.build(job.config.backbone, dropout=job.config.dropout).to(job.world.device).eval()
    scores["untrained"] = _score(job, train, test, untrained, "k-NN untrained")
    scores["raw_pixels"] = _score(job, train, test, _pixels, "k-NN raw pixels")
    return scores


def labelled(job: Job) -> tuple[ImageDataset | None, ImageDataset | None]:
    """The labelled (train, test) splits that k-NN uses: of eval_data where given, else of the training data."""
    config = job.spec.eval_data or job.spec.data
    train = job.dataset if job.spec.eval_data is None else build(config, "train")
    if train.labels is None:
        return None, None
    test = build(config, "test")
    return (train, test) if len(test) and len(train) else (None, None)


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
