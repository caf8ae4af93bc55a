"""What a config's field says of itself beside its default: its range, and whether it counts to a run's identity.

temperature: float = positive(0.1, "scores are divided by it")
optimizer: str = choice("lars", "sgd")
log_every: int = ops(positive(10))
"""

import functools
import math
import types
import typing
from collections.abc import Callable
from dataclasses import Field, dataclass, field, fields
from typing import Any, NoReturn

from launcher.errors import InputError


@dataclass(frozen=True)
class Range:
    """What a field may hold, and how other values are refused. None, for a field that was not given, is always fine."""

    holds: Callable[[Any], bool]
    reason: str
    fix: str


def ops(default: Any) -> Any:
    """A field that does not change the science: it stays out of the run's identity. default: a value, or another
    field."""
    return _field(default, science=False)


def later(default: Any) -> Any:
    """A field of the science that was added when there were runs already: it counts to the identity once it is given
    another value than `default`, and runs from before keep theirs."""
    return _field(default, science="given")


def pinned() -> Any:
    """A field that names another network, None by default: `teacher: str | None = pinned()`. A person gives a run or a
    file of weights; composing puts a `NetworkFromRun` or a `PinnedNetwork` in its place (runspec.py), which know its
    backbone."""
    return _field(None, pinned=True)


def positive(default: Any, reason: str = "it must be positive and finite", fix: str = "give a positive number") -> Any:
    """A number above 0, and finite. default: here as below a value, or another field, such as `ops(8)`."""
    return _ranged(default, lambda value: 0 < value < math.inf, reason, fix)


def not_negative(default: Any, reason: str = "it is negative or infinite", fix: str = "give 0 or more") -> Any:
    """A finite number, 0 or more."""
    return _ranged(default, lambda value: 0 <= value < math.inf, reason, fix)


def at_least(least: int, default: Any, reason: str = "too few", fix: str = "") -> Any:
    """A count of `least` or more."""
    return _ranged(default, lambda value: value >= least, reason, fix or f"give {least} or more")


def below_one(default: Any) -> Any:
    """A number from 0 to below 1: a momentum."""
    return _ranged(default, lambda value: 0 <= value < 1, "out of range", "give a number from 0 to below 1")


def share(default: Any, reason: str = "out of range") -> Any:
    """A number from 0 to 1."""
    return _ranged(default, lambda value: 0 <= value <= 1, reason, "give a number from 0 to 1")


def choice(*choices: str, default: str | None = None, fix: str = "") -> Any:
    """One of a few words, the first of them by default."""
    return _ranged(default or choices[0], choices.__contains__, "no such choice", fix or f"use {' or '.join(choices)}")


def pinned_fields(config: Any) -> list[str]:
    """The names of those of a config."""
    return [each.name for each in fields(config) if each.metadata.get("pinned")]


def check_ranges(config: Any, prefix: str = "method.") -> None:
    """Raises InputError for the first field outside its range. prefix: comes before its name, as "method."."""
    for each in fields(config):
        allowed, value = _range(type(config), each.name), getattr(config, each.name)
        if allowed and value is not None and not allowed.holds(value):
            refuse(config, each.name, allowed.reason, allowed.fix, prefix)


def check_types(config: Any, prefix: str = "") -> None:
    """Raises ValueError for the first field of a dataclass that came out of a file, and is not of its type: what people
    type is checked where it is composed. prefix: comes before its name, as "method."."""
    for name, hint in _hints(type(config)).items():
        if not _is_of(getattr(config, name), hint):
            raise ValueError(f"{prefix}{name} is not of its type")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind) if not each.metadata.get("pinned")}


def _is_of(value: Any, hint: Any) -> bool:
    kind, parts = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is types.UnionType:
        return any(_is_of(value, part) for part in parts)
    if kind in (list, tuple):  # JSON has one for both
        return isinstance(value, list | tuple) and all(_is_of(each, parts[0]) for each in value)
    if kind is dict:
        return isinstance(value, dict) and all(_is_of(each, parts[1]) for each in value.values())
    if kind in (int, float) and type(value) is int:
        return abs(value) < 2**63
    return kind is Any or (isinstance(value, kind) and (kind is bool or not isinstance(value, bool)))


def refuse(config: Any, name: str, reason: str, fix: str, prefix: str = "method.") -> NoReturn:
    """Raises InputError about the field `name` of a config, whose value is shown as a person gives it."""
    value = getattr(config, name)
    raise InputError.of(prefix + name, list(value) if isinstance(value, tuple) else value, reason, fix)


def _field(default: Any, **said: Any) -> Any:
    if isinstance(default, Field):
        given = {"default": default.default, "default_factory": default.default_factory}
        return field(**given, metadata={**default.metadata, **said})
    return field(default=default, metadata=said)


def _ranged(default: Any, holds: Callable[[Any], bool], reason: str, fix: str) -> Any:
    return _field(default, range=Range(holds, reason, fix))


@functools.cache
def _range(config: type, name: str) -> Any:
    """None where it may hold anything. A subclass that gives a field nothing but another default leaves its range."""
    declared = (vars(kind).get("__dataclass_fields__", {}).get(name) for kind in config.__mro__)
    return next((each.metadata["range"] for each in declared if each and "range" in each.metadata), None)
