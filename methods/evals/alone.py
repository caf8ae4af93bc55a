"""One protocol on one checkpoint of a run, in a job of its own: what the ranks of an evaluation do.

Nothing of the method is built but the backbone, so that an evaluation fits any number of ranks.
"""

from typing import Any

import torch

from launcher.errors import InputError, RunFailed
from launcher.registry import Layout
from launcher.rundir import Ledger, RunDir, read_json
from launcher.runtime.checkpoint import load_tensors, verify
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.metrics import Reporter
from launcher.runtime.preempt import StopFlag
from methods import backbones
from methods.data import build
from methods.data.spec import no_labels
from methods.evals.during import knn, labelled
from methods.initialise import PREFIX
from methods.job import Job, probe

PROTOCOLS = {"knn": knn}


def evaluate(run: RunDir, world: World, ledger: Ledger, stop: StopFlag, heart: Heart) -> dict[str, Any]:
    """Evaluate as the folder's eval.json says, and write the score into its ledger and into that of its run.

    Collective. Raises Stopped between batches; InputError when the checkpoint is gone or there are no labels, RunFailed
    when it is not what was written.
    """
    spec, asked, owner = run.spec(), read_json(run.path / "eval.json"), run.owner
    datasets = _datasets(spec) if world.is_main else None  # rank 0 first: it keeps an index that the others then read
    world.barrier()
    train, test = datasets or _datasets(spec)
    # No batch of a training step is laid out here.
    layout = Layout(0, 1, 1, world.size, 1, 1, {})
    job = Job(run, spec, world, layout, ledger, stop, train, (train, test), heart)
    job.reporter = Reporter(run, speaks=world.is_main, purge_step=0)
    job.reporter.progress(force=True, stage="starting")
    path, manifest = world.broadcast(_checkpoint(owner, asked) if world.is_main else None)
    step = heart.step = manifest["step"]
    backbone = _load(job, path)
    own_labels = spec.eval_data == owner.spec().eval_data
    with job.clock("evaluation"):
        known = _known(owner, asked["protocol"]) if own_labels else {}
        scores = PROTOCOLS[asked["protocol"]](job, backbone, known=world.broadcast(known))
    if world.is_main:
        found = {"protocol": asked["protocol"], "step": step, "digest": manifest["digest"], "scores": scores}
        ledger.write("eval", **found)
        # Other labels than those that the run was judged with so far give another number, not a new one in its place.
        name = asked["protocol"]
        if not own_labels and not no_labels(owner.spec().eval_data or owner.spec().data):
            name = f"{name}:{spec.eval_data.name}"
        joined = Ledger(owner, owner.generation(), f"eval-{run.path.name}")
        joined.write("eval", **{**found, "protocol": name}, by=f"evals/{run.path.name}")
        print(f"step {step}: {name} {scores}", flush=True)
    job.reporter.progress(force=True, stage="done")
    job.reporter.close()
    return {"step": step, "seconds": {name: round(value, 3) for name, value in job.seconds.items()}}


def _datasets(spec: Any) -> tuple[Any, Any]:
    try:
        dataset = build(spec.data, "train") if spec.eval_data is None else None
        found = labelled(spec, dataset)
    except ValueError as error:
        raise InputError(str(error)) from None
    if found is None:
        given = spec.eval_data or spec.data
        fix = "give labelled images: eval_data=image_folder eval_data.path=/path/to/them"
        raise InputError.of("eval_data", given.name, "it has no labels, or no test split", fix)
    probe(found[0])
    return found


def _checkpoint(owner: RunDir, asked: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """(path, manifest) of the checkpoint asked for, or of the newest that verifies. On rank 0."""
    if asked["after"] and owner.state().name != "done":
        reason = f"it is {owner.state().name}, and this evaluation was to follow its end"
        fix = f"`sslrun resume {owner.id}`, or `sslrun eval {owner.id}` as it is"
        raise InputError.of("RUN", owner.id, reason, fix)
    saved = owner.checkpoints()
    if asked["step"] is not None:
        path = owner.path / "checkpoints" / f"step_{asked['step']:08d}"
        if path not in saved:
            raise InputError.of("step", asked["step"], f"{path} is gone", f"`sslrun eval {owner.id}` takes the newest")
        broken = verify(path)
        if broken:
            there = ", ".join(str(int(p.name[5:])) for p in saved if p != path) or "none"
            raise RunFailed(f"{path}: {broken}; step=N evaluates another, there are: {there}")
        manifest = read_json(path / "manifest.json")
        if manifest["digest"] != asked["digest"]:
            raise RunFailed(f"{path}: it is another than when the evaluation was asked for; ask again")
        return path, manifest
    for path in reversed(saved):
        broken = verify(path)
        if not broken:
            return path, read_json(path / "manifest.json")
        print(f"checkpoint {path.name} is passed over: {broken}", flush=True)
    raise RunFailed(f"no checkpoint of {owner.id} can be read")


def _load(job: Job, path: Any) -> torch.nn.Module:
    """The backbone of the checkpoint, on the device, to be evaluated."""
    backbone = backbones.build(job.config.backbone, dropout=job.config.dropout)
    try:
        saved = load_tensors(path, "network")
    except OSError as error:  # pruned this second by the training that goes on
        raise RunFailed(f"{path}: {error.strerror or error}; ask for the evaluation again") from None
    state = {key.removeprefix(PREFIX): value for key, value in saved.items() if key.startswith(PREFIX)}
    backbone.load_state_dict(state, strict=True)
    return backbone.to(job.world.device).eval()


def _known(owner: RunDir, protocol: str) -> dict[str, float]:
    """What the run knows already of what its backbone must beat."""
    events = owner.events()
    return next((e["scores"] for e in events if e["event"] == "eval" and e["protocol"] == protocol), {})
