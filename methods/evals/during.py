"""What is judged while a run trains and at its end: k-NN of the backbone, and the method's own figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.errors import Diverged
from launcher.spec.runspec import RunSpec
from methods.data import build
from methods.data.dataset import ImageDataset, tags_of
from methods.engine.collapse import collapse
from methods.engine.collapse_watch import last_word, say_health
from methods.engine.job import Job
from methods.engine.trainer import Trainer
from methods.evals.knn.protocol import knn


def evaluate(job: Job, trainer: Trainer, step: int) -> None:
    """Write `knn` and the trainer's own figures into the ledger. Collective. Without labels there is no k-NN."""
    own = _by_name(job.config.name, trainer.figures(step))

    def so_far(scores: Mapping[str, float]) -> None:
        for protocol, values in {"knn": scores, **own}.items():
            if values:
                job.ledger.write("scored", protocol=protocol, step=step, scores=values)

    # Of the run's own training: those that ran as jobs of their own (`by`) may have had other labels.
    told = [e for e in job.run.history().all("eval") if not e.get("by")] if job.world.is_main else []
    known = job.world.broadcast(first_scores(told).get("knn", {}))
    scores = knn(job, trainer.backbone, known=known, so_far=so_far)
    for protocol, values in {"knn": scores, **own}.items():
        if values and job.world.is_main:
            job.ledger.write("eval", protocol=protocol, step=step, scores=values)
            numbers = {f"{protocol}/{k}": v for k, v in values.items() if isinstance(v, int | float)}
            job.reporter.log(step, **numbers)
            print(f"step {step}: {protocol} {values}", flush=True)
    if scores:
        watch_rank(job, step, scores["rank"])


def _by_name(method: str, figures: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Figures that are not of anything in particular are the method's."""
    flat = {name: value for name, value in figures.items() if not isinstance(value, Mapping)}
    found = {name: value for name, value in figures.items() if isinstance(value, Mapping)}
    return {**found, method: {**found.get(method, {}), **flat}} if flat else found


def watch_rank(job: Job, step: int, rank: float) -> None:
    """Features that are all alike are a collapse, whatever the outputs look like; said when it begins and ends.
    Collective. Raises Diverged where the spec says stop."""
    found = collapse(rank=rank)
    before = job.world.broadcast(last_word(job, "features") if job.world.is_main else "")
    if bool(found) != bool(before):
        say_health(job, step, "features", f"features collapsed at step {step}: {found}" if found else "")
    if found and job.config.on_collapse == "stop":
        raise Diverged(f"features collapsed at step {step}: {found}. Change the recipe, as a new run")


def first_scores(evals: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The first scores of each protocol among `eval` events: what a backbone must beat does not change."""
    return {event["protocol"]: event["scores"] for event in reversed(evals)}


def labelled(
    spec: RunSpec, dataset: ImageDataset | None, *, tags: bool = False
) -> tuple[ImageDataset, ImageDataset] | None:
    """The labelled (train, test) splits that k-NN uses: of eval_data where given (`dataset` may then be None), else of
    the training data `dataset`. tags: several labels an image will do, too.

    None where there are no labels or no test split. Raises InputError where eval_data cannot be used.
    """

    def has_labels(split: ImageDataset) -> bool:
        return len(split) > 0 and (split.labels is not None or (tags and tags_of(split) is not None))

    train = dataset if spec.eval_data is None else build(spec.eval_data, "train")
    if not has_labels(train):
        return None
    test = build(spec.eval_data or spec.data, "test")
    return (train, test) if has_labels(test) else None
