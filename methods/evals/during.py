"""What is judged while a run trains and at its end: its probes, k-NN by default, and the method's own figures."""

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from launcher.errors import Diverged
from launcher.runtime.metrics import Reporter
from launcher.spec.runspec import RunSpec
from methods import backbones
from methods.data import build
from methods.data.dataset import ImageDataset, tags_of
from methods.engine.collapse import collapse
from methods.engine.collapse_watch import last_word, say_health
from methods.engine.features import digest_of
from methods.engine.job import Job
from methods.engine.trainer import Trainer
from methods.evals.judge import judge
from methods.evals.room import too_large
from methods.evals.spec import called, changed, kind_of, needs
from methods.evals.subject import Subject


def evaluate(
    job: Job, trainer: Trainer, step: int, due: Collection[str] | None = None, told: Collection[str] = ()
) -> None:
    """Write the scores of the probes that are `due`, and the trainer's own figures where the method's name is, into the
    ledger; None: of all. Not again those that were `told`. Collective; raises Stopped, with the work of probes kept."""
    own = _by_name(job.config.name, trainer.figures(step)) if due is None or job.config.name in due else {}
    own = {name: values for name, values in own.items() if values and name not in told}
    asked = {name: probe for name, probe in settings_of(job.spec).items() if due is None or name in due}
    asked = {name: probe for name, probe in asked.items() if called(name, changed(name, probe)) not in told}
    asked = {name: probe for name, probe in asked.items() if not left_out(job, name, probe, trainer.backbone)}

    def tell(event: str, found: Mapping[str, Any]) -> None:
        """On rank 0: an event of a probe, and of the method's figures, which stand with the first that is complete."""
        _write(job, event, step, {key: value for key, value in found.items() if key != "digest"})
        for name, values in own.items():
            _write(job, event, step, {"protocol": name, "scores": values})
        if event == "eval":
            own.clear()

    ranks = {}
    if asked:
        # Of the run's own training: those that ran as jobs of their own (`by`) may have had other labels.
        events = [e for e in job.run.history().all("eval") if not e.get("by")] if job.world.is_main else []
        first = job.world.broadcast(first_scores(events))
        known = {name: first.get(called(name, changed(name, probe)), {}) for name, probe in asked.items()}
        backbone = copied(job, trainer.backbone)
        weights = job.world.broadcast(digest_of(backbone.state_dict()) if job.world.is_main else "")
        # k-NN alone is short: it keeps nothing, and needs no checkpoint before.
        beside = copy.copy(job)
        beside.reporter = _Unlogged(job.reporter)
        subject = Subject(beside, backbone, weights, known, step=step, keeps=set(asked) != {"knn"})
        judge(subject, asked, lambda event, found: (ranks.update(_rank(event, found)), tell(event, found)), told)
    for name, values in own.items() if job.world.is_main else ():
        _write(job, "eval", step, {"protocol": name, "scores": values})
    rank = job.world.broadcast(ranks.get("rank"))
    if rank is not None:
        watch_rank(job, step, rank)


class _Unlogged:
    """The reporter of a training, without curves over a probe's own steps, which are none of the training's."""

    def __init__(self, reporter: Reporter):
        self.progress, self.image = reporter.progress, reporter.image

    def log(self, step: int, **values: float) -> None:
        pass


def settings_of(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """The settings of each probe, those that nobody gave filled in."""
    given = {name: {k: v for k, v in probe.items() if k != "eval_every"} for name, probe in spec.probes.items()}
    listed = {name: {k: list(v) if isinstance(v, tuple) else v for k, v in g.items()} for name, g in given.items()}
    return {name: {**vars(kind_of(name)()), **own} for name, own in listed.items()}


def copied(job: Job, backbone: nn.Module) -> nn.Module:
    """A backbone like that of a training, to be judged: a protocol may do with it what it likes."""
    made = backbones.build(job.config.backbone, dropout=job.config.dropout)
    made.load_state_dict(backbone.state_dict(), strict=True)
    return made.to(job.world.device).eval()


def left_out(job: Job, name: str, probe: Mapping[str, Any], backbone: nn.Module) -> bool:
    """Whether a training goes without a probe, which the log says, and the screen where scores are expected.
    Collective."""
    kind = kind_of(name)
    why = "no labels in data or eval_data" if kind.needs and job.labelled is None else ""
    if not why and kind(**probe).gathers():
        why = too_large(job, backbone.feature_dim)
    said = f"{kind.title} is left out: {why}"
    if why and (job.labelled is not None or name != "knn"):
        job.notice(said)
    elif why and job.world.is_main:
        print(said, flush=True)
    return bool(why)


def _rank(event: str, found: Mapping[str, Any]) -> dict[str, float]:
    """The effective rank of the features, where k-NN found it."""
    scores = found["scores"] if event == "eval" else {}
    return {"rank": scores["rank"]} if "rank" in scores and found["protocol"].startswith("knn") else {}


def _write(job: Job, event: str, step: int, found: Mapping[str, Any]) -> None:
    """On rank 0: scores into the ledger, and where they are complete on the curves and into the log."""
    job.ledger.write(event, **found, step=step)
    if event != "eval":
        return
    name, scores = found["protocol"], found["scores"]
    numbers = {k: v for k, v in scores.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    job.reporter.log(step, **{f"{name}/{key}": value for key, value in numbers.items()})
    print(f"step {step}: {name} {scores}", flush=True)


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


def judged(spec: RunSpec, dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset] | None:
    """The (train, test) splits that the probes of a training are judged on: with labels, as `labelled`, one an image or
    several as they take them, or with whatever else they need. `dataset`: what trains. Raises InputError."""
    wanted = needs(spec.probes)
    if wanted and not wanted & {"label", "tags"}:
        return tuple(build(spec.eval_data or spec.data, split) for split in ("train", "test"))
    return labelled(spec, dataset, tags="tags" in wanted)
