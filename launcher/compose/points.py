"""The points of a multirun: Hydra's sweep grammar expanded, and composed once, not once a point.

Composing takes a tenth of a second. What a sweep varies are mostly plain values: those are converted by the schema and
set on copies. Only choices of a group or of a recipe change what is composed.
"""

import dataclasses
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launcher.compose import clusters, protocols
from launcher.compose.overrides import parsed, refusal, refused, spelled
from launcher.compose.training import composed, frozen, plain, refuse_unknown_fields, to_object, typed
from launcher.errors import InputError
from launcher.run.at_once import Show, shown
from launcher.spec import registry
from launcher.spec.contract import Recipe
from launcher.spec.runspec import RunSpec

DATA = registry.facts("data").DATA

GROUPS = {"method": registry.names, "data": lambda: DATA, "eval_data": lambda: DATA, "cluster": clusters.files}
STRUCTURE = (*GROUPS, "recipe", "probes")  # keys at the root that change what is composed
NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})(\.\d{1,15})?")  # that is the same to Hydra and to JSON
MOST = 10_000  # points; more is a slip of the keyboard


@dataclass(frozen=True)
class Point:
    """One run of a sweep: the overrides that distinguish it, its frozen spec and the recipe it started from."""

    varied: tuple[str, ...]
    spec: RunSpec
    recipe: Recipe


def expand(
    overrides: Sequence[str], config_dir: Path | None = None, *, planning: bool = False, show: Show | None = None
) -> list[Point]:
    """Every combination of the values in `overrides`, the last key varying fastest, as Hydra orders them.

    `planning` accepts data that are not at hand. Raises InputError with the override that cannot be read, or the point
    that is no valid run.
    """
    axes = [_axis(text, config_dir) for text in overrides]
    number = math.prod(len(values) for _, values in axes)
    if number > MOST:
        raise InputError(f"--multirun: this is {number:,} runs, more than {MOST:,}; vary fewer values")
    bases: dict[tuple[str, ...], _Base] = {}
    points = []
    combinations = itertools.product(*(values for _, values in axes))
    for combination in shown(combinations, "composing runs", number, show):
        command = [f"{key}={value}" for (key, _), value in zip(axes, combination, strict=True)]
        varied = tuple(word for word, (_, values) in zip(command, axes, strict=True) if len(values) > 1)
        structure = tuple(filter(_structural, command))
        if structure not in bases:
            bases[structure] = _Base(command, config_dir, planning)
        try:
            spec = bases[structure].spec(varied, command)
        except InputError as error:
            raise InputError(f"{error} (at {' '.join(varied)})") from None
        points.append(Point(varied, spec, bases[structure].recipe))
    return points


def rows(
    common: Sequence[str],
    varied: Sequence[Sequence[str]],
    config_dir: Path | None = None,
    *,
    planning: bool = False,
) -> list[Point]:
    """One point for each of `varied`: those overrides besides the `common` ones, none of which they repeat.

    Raises InputError with the point, as `expand` does.
    """
    bases: dict[tuple[str, ...], _Base] = {}
    points = []
    for words in varied:
        structure = tuple(filter(_structural, words))
        try:
            if structure not in bases:
                bases[structure] = _Base([*common, *structure], config_dir, planning)
            refuse_unknown_fields(words, bases[structure].recipe)
            spec = bases[structure].spec(words, [*common, *words])
        except InputError as error:
            raise InputError(f"{error} (at {' '.join(words)})") from None
        points.append(Point(tuple(words), spec, bases[structure].recipe))
    return points


def values_of(text: str) -> list[str]:
    """Every value that the override gives. Raises InputError where it gives none."""
    return _axis(text, None)[1]


def is_swept(text: str) -> bool:
    """Does the override give several values? Raises InputError where it is none."""
    return parsed(text).is_sweep_override()


def _structural(word: str) -> bool:
    return word.partition("=")[0].lstrip("+~").partition("@")[0] in STRUCTURE or protocols.is_setting(word)


class _Base:
    """One composition, and what single values make of it."""

    def __init__(self, overrides: list[str], config_dir: Path | None, planning: bool):
        self._config_dir, self._planning = config_dir, planning
        root, self.recipe = composed(overrides, config_dir=config_dir, planning=planning)
        self._typed = typed(root)
        self._config = to_object(self._typed)
        # A config that refers to other keys must be composed anew when those change.
        self._refers = "${" in OmegaConf.to_yaml(root, resolve=False)
        self._converted: dict[tuple[str, str], Any] = {}

    def spec(self, varied: Sequence[str], overrides: list[str]) -> RunSpec:
        """The frozen spec with the single values of `varied` set; `overrides` is the whole command of the point."""
        values = [word.partition("=")[::2] for word in varied if not _structural(word)]
        # A dictionary adds to what the key has: of this point, not of the one before.
        if self._refers or any(text.lstrip().startswith("{") for _, text in values):
            root, _ = composed(overrides, config_dir=self._config_dir, planning=self._planning)
            return frozen(to_object(typed(root)), planning=self._planning)
        config = _copied(self._config)
        for key, text in values:
            group, _, field = key.lstrip("+").partition(".")
            value = _copied(self._convert(key.lstrip("+"), text))
            if "." in field:  # a dictionary inside: cluster.environment.NCCL_DEBUG
                name, _, inner = field.partition(".")
                getattr(config[group], name)[inner] = value
            elif field:
                setattr(config[group], field, value)
            else:
                config[group] = value
        return frozen(config, planning=self._planning)

    def _convert(self, name: str, text: str) -> Any:
        """`text` as the schema's type of the key `name`. Many points share few values: each is read once."""
        if (name, text) not in self._converted:
            try:  # in place: only this key is read, and each time just after it was set
                OmegaConf.update(self._typed, name, _value(name, text), force_add="." in name)
                self._converted[name, text] = plain(OmegaConf.select(self._typed, name))
            except OmegaConfBaseException as error:
                raise refusal(error) from None
        return self._converted[name, text]


def _copied(value: Any) -> Any:
    """As copy.deepcopy makes it of what `to_object` gave, ten times as fast: nothing lies there twice."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied(inner) for inner in value]
    if dataclasses.is_dataclass(value):
        new = object.__new__(type(value))
        vars(new).update(_copied(vars(value)))
        return new
    return value


def _value(name: str, text: str) -> Any:
    """What Hydra reads in `name=text`. Its parser takes milliseconds, and a range may have thousands of numbers."""
    return json.loads(text) if NUMBER.fullmatch(text) else parsed(f"{name}={text}").value()


def _axis(text: str, config_dir: Path | None) -> tuple[str, list[str]]:
    """(key, its values as Hydra writes them); one value for what is not swept."""
    override = parsed(text)
    key = text.partition("=")[0]
    if not override.is_sweep_override():
        return key, [spelled(text).partition("=")[2]]
    value = override.value()
    if isinstance(value, Glob):
        if key not in GROUPS:
            raise InputError(f"{text}: glob chooses among the members of a group: {', '.join(GROUPS)}")
        own = [p.stem for p in (config_dir / key).glob("*.yaml")] if config_dir else []
        values = value.filter(sorted({*GROUPS[key](), *own}))
        if not values:
            raise InputError(f"{text}: nothing matches; there are {', '.join(GROUPS[key]())}")
        return key, values
    try:
        values = [str(v) for v in override.sweep_string_iterator()]
    except HydraException:  # an interval, which a search would take numbers from
        raise refused(text, "nobody can enumerate it", "give values, or a range") from None
    if not values:
        raise refused(text, "it holds no value", "give some")
    return key, list(dict.fromkeys(values))
