"""What is taken over from other runs, or from files: a backbone that starts from their weights (`init_from`), whole
networks that stay as they are (`pinned()` fields), and all the state of a run that is trained longer (`continue_from`).
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from launcher.errors import InputError
from launcher.run import manifest, pins, waiting
from launcher.runtime.checkpoint import SHARED, Checkpointer, load_tensors
from launcher.spec.runspec import FromRun, InitFrom
from methods import backbones
from methods.backbones.layouts import Source, of_file
from methods.engine.job import Job
from methods.parts.schedules import learning_rate

RESTORE = "restore it, or start a new run"
PREFIX = "backbone."  # of every trainer's network


def load_backbone(backbone: nn.Module, job: Job) -> None:
    """Copy the pinned weights of `init_from` into `backbone`, strictly; nothing without `init_from`.

    Raises InputError when the source is gone, has changed since the run was submitted, or is another backbone.
    """
    source = job.spec.init_from
    # A run that has saved goes on from its own state, and one that trains another longer from that one's.
    if source is None or job.spec.continue_from or job.run.checkpoints():
        return
    _load(job, backbone, job.config.backbone, source, "init_from")


def continued(job: Job, checkpoints: Checkpointer, steps_per_epoch: int) -> int:
    """Load all state of the run that this one trains longer (`continue_from`) and return its step; 0 without one.

    Collective. Raises InputError, on all ranks, when the checkpoint is gone or has changed since this run was
    submitted, and when its state is not that of the method as it is now.
    """
    source, world, config = job.spec.continue_from, job.world, job.config
    if source is None:
        return 0
    path, reason = waiting.patiently(lambda: pins.where(job.run.path, "continue_from", source.path), _shown(job)), ""
    if world.is_main:
        reason = waiting.patiently(lambda: _altered(path, source.digest), _shown(job))
    reason = world.broadcast(reason)
    if reason:
        fix = f"restore it, or train {config.epochs} epochs as a run of its own"
        raise InputError.of("continue_from", path, f"cannot be read ({reason})", fix)
    reason = checkpoints.strange(path)
    if not reason:
        try:
            checkpoints.load(path)
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            reason = str(error).strip().splitlines()[-1].strip() or type(error).__name__
    reason = next(filter(None, world.gather(reason)), "")
    if reason:
        reason = f"its state is not that of {config.name} as it is now ({reason})"
        fix = f"train {config.epochs} epochs as a run of its own"
        raise InputError.of("continue_from", source.run, reason, fix)
    steps = steps_per_epoch * config.epochs
    before = learning_rate(config, source.step - 1, source.step, steps_per_epoch)
    after = learning_rate(config, source.step, steps, steps_per_epoch)
    if world.is_main:
        figures = {"step": source.step, "steps": steps, "epochs": [source.epochs, config.epochs], "lr": [before, after]}
        job.ledger.write("continued", run=source.run, path=source.path, digest=source.digest, **figures)
    job.notice(
        f"goes on from step {source.step:,} of {source.run}, its last, to {steps:,}"
        + (
            f"; schedules are stretched: the learning rate was {before:.3g} and is {after:.3g}"
            if before != after
            else ""
        )
    )
    return source.step


def frozen_network(job: Job, field: str) -> nn.Module:
    """The backbone that the `pinned()` field of the config names, with its weights: uint8 [B, C, H, W] on the job's
    device -> [B, feature_dim]. In eval mode and without gradients; the same bits on every rank and in every start.

    It is loaded anew by each start and never saved: no part of a trainer's `networks`, of what is distributed, or of
    what is registered. A rank holds 4 bytes a parameter. Leaves torch's generator as it was. Raises InputError when the
    field names none, or when the source is gone, has changed since the run was submitted, or is another backbone.
    """
    source, name = getattr(job.config, field), f"method.{field}"
    if source is None:
        raise InputError.of(name, "null", "it names no network", "give a run, or weights written by `sslrun export`")
    with torch.random.fork_rng(devices=[]):  # what is drawn for the networks that train must not depend on this one
        network = backbones.build(source.backbone)
    _load(job, network, source.backbone, source, name)
    return network.to(job.world.device).eval().requires_grad_(False)


def _load(job: Job, network: nn.Module, backbone: str, source: InitFrom | FromRun, field: str) -> None:
    """Copy what was pinned for the field into `network`, a `backbone`, strictly. Collective: rank 0 reads all of it for
    its digest, the others what they need."""
    looked = waiting.patiently(lambda: _looked(job, source, field), _shown(job)) if job.world.is_main else None
    place, refused = job.world.broadcast(looked)
    if refused:
        raise InputError.of(*refused)
    path = Path(place)

    def read() -> dict[str, torch.Tensor]:
        if path.is_dir():
            saved = load_tensors(path, "network", SHARED)
            return {key.removeprefix(PREFIX): value for key, value in saved.items() if key.startswith(PREFIX)}
        named = Source(field, path, backbone="method.backbone" if field == "init_from" else None)
        return of_file(backbone, named).state

    try:
        state = waiting.patiently(read, _shown(job))
        network.load_state_dict(state, strict=True)
    except (OSError, SafetensorError) as error:
        raise InputError.of(field, path, f"cannot be read ({error})", RESTORE) from None
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError.of(field, path, f"other weights than {backbone}'s ({reason})", "use its own") from None


def _looked(job: Job, source: InitFrom | FromRun, field: str) -> tuple[str, tuple[str, ...] | None]:
    """(where that lies which was pinned, what is wrong with it). Raises OSError where that cannot be told."""
    try:
        found = pins.taken(job.run.path, field, source)
    except InputError as error:
        return source.path, (error.field, str(error.value), error.reason, error.fix)
    return found.path, _refused(Path(found.path), found.digest, field)


def _refused(path: Path, digest: str, field: str) -> tuple[str, str, str, str] | None:
    """What is wrong with what lies there, as `InputError.of` takes it; None where it is what was pinned. Raises OSError
    where that cannot be told."""
    try:
        if path.is_dir():
            found = _digest_of_checkpoint(path)
        else:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and not waiting.answered(error):
            raise
        return field, str(path), f"cannot be read ({error})", RESTORE
    if found == digest:
        return None
    return field, str(path), "it has changed since this run was submitted", "start a new run"


def _altered(path: Path, digest: str) -> str:
    """Why the checkpoint is not the one of this digest; empty where it is. Raises OSError where that cannot be told."""
    other = "it has changed since this run was submitted"
    return manifest.verify(path) or ("" if manifest.read(path)["digest"] == digest else other)


def _shown(job: Job) -> Callable[[str], None]:
    def show(stage: str) -> None:
        if job.world.is_main:
            waiting.shown_by(job.run.path, job.ledger.generation)(stage)

    return show


def _digest_of_checkpoint(path: Path) -> str:
    """That of its manifest, as far as what is read of it is what was written."""
    files = manifest.read(path)["files"]
    file = f"{SHARED}.safetensors"
    return manifest.digest({**files, file: manifest.checked(path / file, files[file])})
