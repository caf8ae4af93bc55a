"""Protocols on one checkpoint of a run, in a job of its own: what the ranks of an evaluation do.

Nothing of the method is built but the backbone, so that an evaluation fits any number of ranks.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from launcher.errors import InputError, RunFailed
from launcher.run import manifest, pins, waiting
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.shapes import ASKED
from launcher.runtime.checkpoint import load_tensors, verify
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.spec.runspec import RunSpec
from methods import backbones
from methods.data import build
from methods.data.broken import probe
from methods.data.spec import no_labels
from methods.engine.initialise import PREFIX
from methods.engine.job import Job
from methods.evals.during import first_scores, labelled
from methods.evals.judge import judge
from methods.evals.remarks import remarks, unlabelled
from methods.evals.spec import images_of, kind_of, needs, refuse_unfit
from methods.evals.subject import Subject

LABELS = {"label", "tags"}  # what classifiers learn from


def evaluate(run: RunDir, world: World, ledger: Ledger, stop: StopFlag, heart: Heart) -> dict[str, Any]:
    """Evaluate as the folder's eval.json says, and write the scores into its ledger and into that of its run.

    Collective. Raises Stopped between batches; InputError when the checkpoint is gone or there are no labels, RunFailed
    when it is not what was written.
    """
    spec, asked, owner = run.spec(), waiting.patiently(lambda: ASKED.read(run.path / "eval.json")), run.owner
    # One from before there were settings names one protocol.
    protocols = asked.get("settings") or {asked["protocol"]: vars(kind_of(asked["protocol"])())}
    with job_of(run, world, ledger, stop, heart, protocols) as job:
        show = waiting.shown_by(run.path, ledger.generation) if world.is_main else None
        chosen = waiting.patiently(lambda: _checkpoint(run, owner, asked), show) if world.is_main else None
        place, saved = world.broadcast(chosen)
        path = Path(place)
        step = heart.step = saved["step"]
        job.reporter.progress(step=step)
        own_labels = spec.eval_data == owner.spec().eval_data
        known = first_scores(owner.history().all("eval")) if own_labels else {}
        subject = Subject(job, _load(job, path), saved["digest"], world.broadcast(known))
        usual = _first_data(owner, spec) if world.is_main else ""
        joined = Ledger(owner.path, owner.generation(), f"eval-{run.path.name}") if world.is_main else None

        def tell(event: str, found: dict[str, Any]) -> None:
            found, scores = {**found, "step": step}, found["scores"]
            # On other labels than those that the run was judged with so far its numbers stand beside the former.
            data = images_of(spec.eval_data or spec.data)
            name = found["protocol"] if own_labels or data == usual else f"{found['protocol']}:{data}"
            # The run's first: what the evaluation knows it has told already is not told again.
            joined.write(event, **{**found, "protocol": name}, data=data, by=f"evals/{run.path.name}")
            ledger.write(event, **found)
            if event != "eval":
                return
            numbers = {key: v for key, v in scores.items() if isinstance(v, int | float) and not isinstance(v, bool)}
            job.reporter.log(step, **{f"{found['protocol']}/{key}": value for key, value in numbers.items()})
            print(f"step {step}: {name} {scores}", flush=True)

        judge(subject, protocols, tell)
    return {"step": step, "seconds": job.clock.seconds()}


def _first_data(owner: RunDir, spec: RunSpec) -> str:
    """What a run without labels of its own was first judged on, as `images_of` calls it; this where there is none."""
    if not no_labels(owner.spec().eval_data or owner.spec().data):
        return ""
    judged = [event["data"] for event in owner.history().all("eval") if event.get("data")]
    return judged[0] if judged else images_of(spec.eval_data) if spec.eval_data else ""


@contextlib.contextmanager
def job_of(
    run: RunDir, world: World, ledger: Ledger, stop: StopFlag, heart: Heart, protocols: Mapping[str, Any]
) -> Iterator[Job]:
    """A job that trains nothing, on the images that `protocols` need, and which says how it ends. Collective; raises
    InputError without them."""
    spec, with_labels = run.spec(), bool(needs(protocols) & LABELS)
    found = _datasets(spec, protocols) if world.is_main else None  # first: it keeps an index that the others read
    world.barrier()
    dataset, labels = found or _datasets(spec, protocols)
    job = Job(run, spec, world, None, ledger, stop, dataset, labels, heart)
    job.reporter.start(purge_step=0)
    for said in remarks(spec, dataset, labels) if world.is_main and with_labels else ():
        job.notice(said)
    job.reporter.progress(force=True, stage="starting", notices=job.notices)
    try:
        yield job
        job.reporter.progress(force=True, stage="done")
    except Stopped:
        job.reporter.progress(force=True, stage="stopped")
        raise
    finally:
        job.reporter.close()


def _datasets(spec: Any, protocols: Mapping[str, Any]) -> tuple[Any, Any]:
    """(images, (train, test) where they have labels, one an image or several, or whatever else `protocols` need)."""
    given, asked = spec.eval_data or spec.data, needs(protocols)
    refuse_unfit(protocols, given)
    dataset = build(spec.data, "train") if spec.eval_data is None else None
    found = labelled(spec, dataset, tags=True)
    if found is None and not asked & LABELS:
        train, test = build(given, "train"), build(given, "test")
        dataset = test if len(test) else train
        if asked and not len(test):
            raise InputError.of("eval_data", given.name, "it has no test split", "give images that judge, too")
        probe(dataset)
        return dataset, (train, test) if asked else None
    if found is None:
        fix = "give labelled images: eval_data=image_folder eval_data.path=/path/to/them"
        reason = unlabelled(spec, dataset) or "it has no labels, or no test split"
        raise InputError.of("eval_data", given.name, reason, fix)
    probe(found[0])
    return found[0], found


def _checkpoint(run: RunDir, owner: RunDir, asked: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """(path, manifest) of the checkpoint asked for, or of the newest that verifies. On rank 0. Raises OSError."""
    if asked.get("after") and owner.state().name != "done":
        reason = f"it is {owner.state().name}, and this evaluation was to follow its end"
        fix = f"{owner.first_fix()}, or `sslrun eval {owner.typed} step=newest`"
        raise InputError.of("RUN", owner.id, reason, fix)
    saved = owner.checkpoints()
    if asked["step"] is not None:
        path = owner.path / "checkpoints" / f"step_{asked['step']:08d}"
        kept = pins.where(run.path, pins.JUDGED, path)
        if kept == path and path not in saved:
            raise InputError.of("step", asked["step"], f"{path} is gone", f"`sslrun eval {owner.typed}` takes the last")
        broken = verify(kept)
        if broken:
            there = ", ".join(str(int(p.name[5:])) for p in saved if p != path) or "none"
            raise RunFailed(f"{kept}: {broken}; step=N evaluates another, there are: {there}")
        found = manifest.read(kept)
        if found["digest"] != asked.get("digest"):
            raise RunFailed(f"{kept}: it is another than when the evaluation was asked for; ask again")
        return str(kept), found
    for path in reversed(saved):
        broken = verify(path)
        if not broken:
            return str(path), manifest.read(path)
        print(f"checkpoint {path.name} is passed over: {broken}", flush=True)
    raise RunFailed(f"no checkpoint of {owner.id} can be read")


def _load(job: Job, path: Path) -> torch.nn.Module:
    """The backbone of the checkpoint, on the device, to be evaluated."""
    backbone = backbones.build(job.config.backbone, dropout=job.config.dropout)
    try:
        saved = waiting.patiently(lambda: load_tensors(path, "network"))
    except OSError as error:  # pruned this second by the training that goes on
        raise RunFailed(f"{path}: {error.strerror or error}; ask for the evaluation again") from None
    state = {key.removeprefix(PREFIX): value for key, value in saved.items() if key.startswith(PREFIX)}
    backbone.load_state_dict(state, strict=True)
    return backbone.to(job.world.device).eval()
