"""What to type so that composing gives a spec again."""

import dataclasses
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.compose.overrides import quoted, spelled
from launcher.errors import InputError
from launcher.run.manifest import STEP
from launcher.spec import paths, registry
from launcher.spec.runspec import FromRun, InitFrom, RunSpec

DATA = registry.facts("data").DATA


def command(spec: RunSpec, given: Mapping[str, Any]) -> str:
    """A line for a shell: a run of what `spec` trains, but for what is `given`, as {"method.epochs": 4} or as somebody
    typed it. Of the spec it says what differs from its recipe, and the folder of runs where that is not the usual one.
    """
    found = {key: _written(key, value) for key, value in _differences(spec)}
    for key, value in given.items():
        listed = str(value).startswith(("[", "{"))
        found[key] = spelled(f"{key}={value}") if listed or "," not in str(value) else quoted(key, value)
    return shlex.join(["sslrun", *found.values()])


def stays(spec: RunSpec, key: str, value: str) -> InputError:
    """The error that a run cannot be given another value, with what to type instead."""
    key = key.lstrip("+~")
    group, _, field = key.partition(".")
    run, fix = spec.run_id, "leave it out"
    if not registry.method(spec.method.name).trains:
        pass
    elif group in ("eval_data", "eval_after", "probes"):
        fix = f"`sslrun eval {run} protocol=knn` judges it anew, also with eval_data=NAME"
    elif group in ("recipe", "init_from", "continue_from") or (group in ("method", "data") and not field):
        fix = "start another run"
    elif key == "method.epochs" and value.isdigit() and int(value) > spec.method.epochs:
        longer = command(spec, {key: value, "continue_from": run})
        fix = f"to train it longer, as a run of its own, once it is done: `{longer}`"
    elif group == "seed" or (field and dict(_counted(getattr(spec, group))).get(field)):
        fix = f"as a run of its own: `{command(spec, {key: value})}`"
    return InputError.of(key, value, f"{run} stays as it was made", fix)


def _counted(config: Any) -> Iterator[tuple[str, bool]]:
    """(name, whether it counts to the identity) of a config's fields."""
    for each in dataclasses.fields(config):
        yield each.name, each.metadata.get("science", True) is not False


def _differences(spec: RunSpec) -> Iterator[tuple[str, Any]]:
    recipe = registry.method(spec.method.name).recipe(spec.recipe)
    yield "method", spec.method.name
    yield "recipe", spec.recipe
    yield from _changed("method", spec.method, recipe.method)
    for key, theirs, own in (("data", spec.data, recipe.data), ("eval_data", spec.eval_data, None)):
        if theirs is None:
            continue
        if own is None or own.name != theirs.name:
            own = DATA[theirs.name]()
            yield key, theirs.name
        yield from _changed(key, theirs, own)
    if spec.seed:
        yield "seed", spec.seed
    if spec.init_from:
        yield "init_from", named(spec.init_from)
    if spec.continue_from:
        yield "continue_from", str(Path(spec.continue_from.path).parents[1])
    if spec.runs != str(paths.absolute("runs")):
        yield "runs", spec.runs


def _changed(group: str, config: Any, recipe: Any) -> Iterator[tuple[str, Any]]:
    for name, counts in _counted(config):
        value, own = getattr(config, name), getattr(recipe, name)
        value = list(value) if isinstance(value, tuple) else value
        if counts and value != own:
            yield f"{group}.{name}", named(value) if isinstance(value, InitFrom | FromRun) else value


def named(source: InitFrom | FromRun) -> str:
    """What a person types for it."""
    path = Path(source.path)
    if isinstance(source, FromRun):
        return source.path if source.step is None else f"{path}@{source.step}"
    if STEP.fullmatch(path.name) and path.parent.name == "checkpoints":  # of a run of long ago
        return f"{path.parents[1]}@{int(path.name.removeprefix('step_'))}"
    return source.path


def _written(key: str, value: Any) -> str:
    if isinstance(value, str) and not re.fullmatch(r"[\w./:+@-]*", value, re.ASCII):
        return quoted(key, value)
    return spelled(f"{key}={value if isinstance(value, str) else json.dumps(value)}")
