"""What a run takes from another run or from a file of weights, pinned when it is composed: where that lies, and the
digest of its content."""

import json
from pathlib import Path
from typing import Any

from launcher.compose import words
from launcher.errors import InputError
from launcher.run import manifest
from launcher.run.folder import RunDir, find
from launcher.run.manifest import sha256
from launcher.spec import paths, registry
from launcher.spec.fields import pinned_fields
from launcher.spec.runspec import ContinueFrom, InitFrom, PinnedNetwork, RunSpec, flat

BACKBONES, SUFFIXES = registry.facts("backbones").BACKBONES, registry.facts("backbones").SUFFIXES
LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one


def pin_init_from(name: str | None, runs: Path, backbone: str) -> InitFrom | None:
    """Pin what a run starts from: a run's newest checkpoint or a file of weights, with the digest of its content.

    Raises InputError when there is no such run or file, when the run has no checkpoint yet or another backbone.
    """
    if name is None:
        return None
    file = _file(name)
    if file:
        if file.suffix not in SUFFIXES:
            fix = f"give a run, or a file of {', '.join(SUFFIXES)}, such as `sslrun export` writes"
            raise InputError.of("init_from", name, "its name does not end as one of weights does", fix)
        return InitFrom(str(file), sha256(file))
    run = _run("init_from", name, runs)
    theirs = run.spec().method.backbone
    if theirs != backbone:
        fix = f"use method.backbone={theirs} or another run"
        raise InputError.of("init_from", name, f"that run has the backbone {theirs}, not {backbone}", fix)
    return InitFrom(*_newest("init_from", name, run))


def pin_networks(config: Any, runs: Path) -> None:
    """Put a `PinnedNetwork` in every `pinned()` field of a method's config that names a run or a file.

    Raises InputError as `pin_init_from` does, and where nothing says which backbone it is, or it is none of ours.
    """
    for name in pinned_fields(config):
        if isinstance(getattr(config, name), str):
            setattr(config, name, _network(f"method.{name}", getattr(config, name), runs))


def pin_continue_from(name: str, runs: Path, spec: RunSpec) -> ContinueFrom:
    """Pin the last checkpoint of the finished run that `spec` trains for more epochs.

    Raises InputError where there is no such run, where it has not ended or was trained for as long already, and where
    anything else of its science is another than that of `spec`.
    """
    run = _run("continue_from", name, runs)
    theirs = run.spec()
    if run.owner or not registry.method(theirs.method.name).trains:
        raise InputError.of("continue_from", name, "it trains nothing", "give a run that does")
    state = run.state().name
    if state != "done":
        fix = f"`sslrun resume {run.id}` first"
        raise InputError.of("continue_from", name, f"it is {state}, and only a finished run is trained longer", fix)
    ours, known = (flat({**each.science, "continue_from": None}) for each in (spec, theirs))
    for key in sorted(ours | known, key=lambda key: key != "method.name"):
        if key != "method.epochs" and ours.get(key) != known.get(key):
            line = words.command(theirs, {"method.epochs": spec.method.epochs, "continue_from": name})
            reason = f"{run.id} was trained with {known.get(key)}, and only method.epochs may be another"
            raise InputError.of(key, ours.get(key), reason, f"type `{line}`")
    epochs = theirs.method.epochs
    if spec.method.epochs <= epochs:
        reason = f"{run.id} was trained for {epochs} already"
        raise InputError.of("method.epochs", spec.method.epochs, reason, f"give more than {epochs}")
    path, digest = _newest("continue_from", name, run)
    return ContinueFrom(path, digest, run.id, manifest.read(Path(path))["step"], epochs)


def _network(field: str, name: str, runs: Path) -> PinnedNetwork:
    file = _file(name)
    if file:
        if file.suffix != ".safetensors":
            fix = "give a run, or weights written by `sslrun export`"
            raise InputError.of(field, name, "only .safetensors files say which backbone they hold", fix)
        try:
            found = PinnedNetwork(str(file), sha256(file), _said_by(file))
        except (OSError, ValueError, AttributeError) as error:
            reason = getattr(error, "strerror", None) or "it is damaged"
            fix = "write it anew with `sslrun export`"
            raise InputError.of(field, name, f"cannot be read ({reason})", fix) from None
    else:
        run = _run(field, name, runs)
        found = PinnedNetwork(*_newest(field, name, run), run.spec().method.backbone)
    if not found.backbone:
        fix = "give a run, or weights written by `sslrun export`"
        raise InputError.of(field, name, "it does not say which backbone it holds", fix)
    if found.backbone not in BACKBONES:
        fix = f"use one of {', '.join(BACKBONES)}"
        raise InputError.of(field, name, f"it holds the backbone {found.backbone}, which is not there", fix)
    return found


def _file(name: str) -> Path | None:
    """The file of weights of that name; None where it is no file."""
    file = paths.led_to(name)
    return file if file.is_file() else None


def _said_by(file: Path) -> str:
    """The backbone that `sslrun export` noted in the file; empty where somebody else wrote it."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            raise ValueError
        return str(json.loads(stream.read(length)).get("__metadata__", {}).get("backbone", ""))


def _run(field: str, name: str, runs: Path) -> RunDir:
    try:
        return find(name, runs)
    except InputError as error:
        raise error.about(field) from None


def _newest(field: str, name: str, run: RunDir) -> tuple[str, str]:
    """(path, digest) of the newest checkpoint."""
    saved = run.checkpoints()
    if not saved:
        raise InputError.of(field, name, "that run has no checkpoint yet", f"wait, or `sslrun resume {run.id}`")
    return str(saved[-1]), manifest.read(saved[-1])["digest"]
