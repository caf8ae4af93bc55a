"""The weights of other runs, or of files: a backbone that starts from them (`init_from`), and whole networks that stay
as they are (`pinned()` fields)."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from launcher.errors import InputError
from launcher.run import manifest
from launcher.run.files import read_json
from launcher.runtime.checkpoint import SHARED, load_tensors
from launcher.spec.runspec import InitFrom
from methods import backbones
from methods.backbones.layouts import Source, fitted
from methods.backbones.reading import tensors
from methods.engine.job import Job

RESTORE = "restore it, or start a new run"
PREFIX = "backbone."  # of every trainer's network


def load_backbone(backbone: nn.Module, job: Job) -> None:
    """Copy the pinned weights of `init_from` into `backbone`, strictly; nothing without `init_from`.

    Raises InputError when the source is gone, has changed since the run was submitted, or is another backbone.
    """
    source = job.spec.init_from
    if source is None or job.run.checkpoints():  # a run that has saved goes on from its own state
        return
    _load(job, backbone, job.config.backbone, source, "init_from")


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


def _load(job: Job, network: nn.Module, backbone: str, source: InitFrom, field: str) -> None:
    """Copy what was pinned for the field into `network`, a `backbone`, strictly. Collective: rank 0 reads all of it for
    its digest, the others what they need."""
    path = Path(source.path)
    refused = job.world.broadcast(_refused(source, field) if job.world.is_main else None)
    if refused:
        raise InputError.of(*refused)
    try:
        if path.is_dir():
            saved = load_tensors(path, "network", SHARED)
            state = {key.removeprefix(PREFIX): value for key, value in saved.items() if key.startswith(PREFIX)}
        else:
            named = Source(field, path, backbone="method.backbone" if field == "init_from" else None)
            state = fitted(tensors(path, field), backbone, named).state
        network.load_state_dict(state, strict=True)
    except (OSError, SafetensorError) as error:
        raise InputError.of(field, path, f"cannot be read ({error})", RESTORE) from None
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError.of(field, path, f"other weights than {backbone}'s ({reason})", "use its own") from None


def _refused(source: InitFrom, field: str) -> tuple[str, str, str, str] | None:
    """What is wrong with the source, as `InputError.of` takes it; None where it is what was pinned."""
    path = Path(source.path)
    try:
        if path.is_dir():
            found = _digest_of_checkpoint(path)
        else:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        return field, source.path, f"cannot be read ({error})", RESTORE
    if found == source.digest:
        return None
    return field, source.path, "it has changed since this run was submitted", "start a new run"


def _digest_of_checkpoint(path: Path) -> str:
    """That of its manifest, as far as what is read of it is what was written."""
    files = read_json(path / "manifest.json")["files"]
    file = f"{SHARED}.safetensors"
    read = {**files[file], "sha256": manifest.sha256(path / file)}
    return manifest.digest({**files, file: read})
