"""What a run takes from another run or from a file of weights: a file is known by the digest of its content, a run by
its identity and a step, so that a run can be asked for before the other has ended.

    RUN           what it is at its end, whether that has come or not
    RUN@19        its checkpoint of step 19
    RUN@newest    its newest checkpoint of now, whose step counts from then on
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from launcher.compose import words
from launcher.errors import InputError
from launcher.run import manifest, pins
from launcher.run.folder import RunDir, find
from launcher.run.manifest import sha256
from launcher.run.state import ACTIVE
from launcher.slurm import queue
from launcher.spec import paths, registry
from launcher.spec.fields import pinned_fields
from launcher.spec.runspec import (
    ContinueFrom,
    FromRun,
    InitFrom,
    NetworkFromRun,
    PinnedNetwork,
    RunSpec,
    flat,
    freeze,
)

BACKBONES, SUFFIXES = registry.facts("backbones").BACKBONES, registry.facts("backbones").SUFFIXES
LONGEST_HEADER = 100_000_000  # bytes; safetensors reads no longer one
NEWEST = "newest"


def pin_init_from(name: str | None, runs: Path, backbone: str) -> InitFrom | FromRun | None:
    """What a run starts from: a file of weights, with the digest of its content, or a run, or one of its checkpoints.

    Raises InputError when there is no such run, file or checkpoint, or when the run has another backbone.
    """
    if name is None:
        return None
    file = _file(name)
    if file:
        if file.suffix not in SUFFIXES:
            fix = f"give a run, or a file of {', '.join(SUFFIXES)}, such as `sslrun export` writes"
            raise InputError.of("init_from", name, "its name does not end as one of weights does", fix)
        return InitFrom(str(file), sha256(file))
    source, theirs = _of_run("init_from", name, runs)
    if theirs != backbone:
        fix = f"use method.backbone={theirs} or another run"
        raise InputError.of("init_from", name, f"that run has the backbone {theirs}, not {backbone}", fix)
    return source


def pin_networks(config: Any, runs: Path) -> None:
    """Put a `NetworkFromRun` or a `PinnedNetwork` in every `pinned()` field of a method's config that names a run or a
    file.

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
    state, at_work = _now(run)
    if state != "done":
        fix = "wait until it is done" if at_work else run.first_fix()
        raise InputError.of("continue_from", name, f"it is {state}, and only a finished run is trained longer", fix)
    made_before = not any(isinstance(source, FromRun) for source in theirs.sources.values())
    like = (made_before and by_content(spec)) or spec
    ours, known = (flat({**each.science, "continue_from": None}) for each in (like, theirs))
    for key in sorted(ours | known, key=lambda key: key != "method.name"):
        if key != "method.epochs" and ours.get(key) != known.get(key):
            line = words.command(theirs, {"method.epochs": spec.method.epochs, "continue_from": name})
            reason = f"{run.id} was trained with {known.get(key)}, and only method.epochs may be another"
            raise InputError.of(key, ours.get(key), reason, f"type `{line}`")
    epochs = theirs.method.epochs
    if spec.method.epochs <= epochs:
        reason = f"{run.id} was trained for {epochs} already"
        raise InputError.of("method.epochs", spec.method.epochs, reason, f"give more than {epochs}")
    saved = run.checkpoints()
    if not saved:
        raise InputError.of("continue_from", name, "that run has no checkpoint", "give one that has")
    last = manifest.read(saved[-1])
    return ContinueFrom(str(saved[-1]), last["digest"], run.id, last["step"], epochs)


def as_made(spec: RunSpec) -> RunSpec:
    """`spec`, or the one of a run that is there and was made before runs could wait for one another: the same line
    means that run still."""
    before = by_content(spec)
    if before is None or not (Path(before.runs) / before.run_id / "spec.json").exists():
        return spec
    ends = [s for s in spec.sources.values() if isinstance(s, FromRun) and s.step is None]
    trains_on = any(RunDir(source.path).state().name in ACTIVE for source in ends)
    return spec if trains_on else before


def by_content(spec: RunSpec) -> RunSpec | None:
    """`spec` as it would have been then, with the digests of checkpoints, of runs their newest; None where there is
    none, or none is meant."""
    found: dict[str, InitFrom] = {}
    for field, source in spec.sources.items():
        if isinstance(source, FromRun):
            saved = RunDir(source.path).checkpoints()
            meant = [path for path in saved if source.step in (None, number(path))]
            if not meant:
                return None
            at = str(meant[-1]), manifest.read(meant[-1])["digest"]
            found[field] = PinnedNetwork(*at, source.backbone) if isinstance(source, NetworkFromRun) else InitFrom(*at)
    if not found:
        return None
    config = {each.name: getattr(spec.method, each.name) for each in dataclasses.fields(spec.method)}
    config |= {field.removeprefix("method."): source for field, source in found.items() if field.startswith("method.")}
    method = freeze(registry.method(spec.method.name).config(**config))
    return dataclasses.replace(spec, method=method, init_from=found.get("init_from", spec.init_from))


def split(field: str, name: str, runs: Path) -> tuple[str, str]:
    """(what names the run, the step or "newest"; empty where the name says neither). Raises InputError about the field
    where the @ has nothing behind it."""
    run, at, step = name.rpartition("@")
    if not at or any((path / "spec.json").is_file() for path in (paths.absolute(name), runs / name)):
        return name, ""
    if not step:
        raise InputError.of(field, name, "no step stands behind the @", f"give {run}@STEP, {run}@newest, or {run}")
    return run, step


def at_step(run: RunDir, step: str, field: str, value: object) -> Path:
    """The run's checkpoint of that step, or its newest. Raises InputError about the field where there is none."""
    saved = run.checkpoints()
    if step != NEWEST and not step.isdecimal():
        raise InputError.of(field, value, "that is no step", f"give a number, {NEWEST}, or none for its end")
    if not saved:
        state, at_work = _now(run)
        reason = f"{run.id} has no checkpoint yet"
        fix = "wait, or give no step: then it is what that run is at its end"
        if state == "done":
            reason, fix = f"{run.id} is done, and its checkpoints are gone", "put them back, or give another run"
        elif not at_work:
            fix = run.first_fix()
        raise InputError.of(field, value, reason, fix)
    if step == NEWEST:
        return saved[-1]
    for path in saved:
        if int(step) == number(path):
            return path
    there = f"there are: {', '.join(str(number(path)) for path in saved)}"
    raise InputError.of(field, value, f"{run.id} has no checkpoint of that step", there)


def _now(run: RunDir) -> tuple[str, bool]:
    """(its state, whether a process or a job has it)."""
    state = run.state(queue.of_runs([run])[0])
    return state.name, bool(state.job) or run.held()


def number(checkpoint: Path) -> int:
    """The step of a checkpoint."""
    return int(checkpoint.name.removeprefix("step_"))


def _of_run(field: str, name: str, runs: Path) -> tuple[FromRun, str]:
    """(what is taken from the run, the name of its backbone)."""
    named, step = split(field, name, runs)
    run = _run(field, named, runs)
    spec = run.spec()
    if run.owner or not registry.method(spec.method.name).trains:
        raise InputError.of(field, name, "it trains nothing", "give a run that does")
    at = number(at_step(run, step, field, name)) if step else None
    return FromRun(str(run.path), pins.identity_of(run.path), at), spec.method.backbone


def _network(field: str, name: str, runs: Path) -> PinnedNetwork | NetworkFromRun:
    found: PinnedNetwork | NetworkFromRun
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
        source, backbone = _of_run(field, name, runs)
        found = NetworkFromRun(source.path, source.identity, source.step, backbone)
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
