"""Rows of the index by the words of a command line: which of them, in which order, and what of each.

A key is one of index.EMPTY (state, step, loss), goes into what it holds (evals.knn.trained, restarts.preempted), or
names a field of the run's config (method.lr, seed, cluster.partition).
"""

import dataclasses
import difflib
import json
import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.errors import InputError
from launcher.report.index import EMPTY, RunRow
from launcher.run.causes import CAUSES
from launcher.spec import runspec

FORM = re.compile(r"\s*(?P<key>(?:[^\s=!<>(]|\([^)]*\))+)\s*(?P<sign>!=|<=|>=|==|=|<|>)\s*(?P<text>.*?)\s*", re.DOTALL)
ORDERINGS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
NO_CONFIG = ("format", "checksum")  # of spec.json: not the run's, but the file's


def needs_config(keys: Iterable[str]) -> bool:
    """Whether any of them is a field of the runs' configs."""
    return any(key not in EMPTY and not key.startswith(("evals.", "restarts.")) for key in keys)


def keys_of(said: str) -> list[str]:
    """The keys of `--columns=KEY,KEY`; a comma within brackets belongs to a key."""
    return [name.strip() for name in re.split(r",(?![^(]*\))", said)]


def value(row: RunRow, key: str) -> Any:
    """What `key` says of the run; None where it says nothing. A cause that restarted nothing is 0."""
    found = _find(row, key)
    return 0 if found is None and key.startswith("restarts.") else found


@dataclass(frozen=True)
class Condition:
    """`method.lr>=0.1`, read. Numbers are compared as numbers, all else as text."""

    said: str
    key: str
    sign: str
    text: str

    @classmethod
    def read(cls, said: str) -> "Condition":
        """Raises InputError when `said` is no comparison."""
        match = FORM.fullmatch(said)
        if not match:
            raise InputError.of("--where", said, "it compares nothing", "write it like 'method.lr>=0.1' or state=done")
        return cls(said, match["key"], match["sign"], match["text"])

    def holds(self, row: RunRow) -> bool:
        """No value is equal to `null` alone, and neither above nor below anything. Raises InputError where two values
        have no order.
        """
        found = value(row, self.key)
        if self.sign in ("=", "=="):
            return _same(found, self.text)
        if self.sign == "!=":
            return not _same(found, self.text)
        if found is None:
            return False
        if _is_number(found):
            number = _number(self.text)
            if number is None:
                self._refuse(f"{self.key} is a number", f"compare it with one, as '{self.key}{self.sign}1'")
            return ORDERINGS[self.sign](found, number)
        if not isinstance(found, str):
            self._refuse(f"{self.key} has no order", f"use '{self.key}={self.text}'")
        return ORDERINGS[self.sign](found, self.text)

    def _refuse(self, reason: str, fix: str) -> None:
        raise InputError.of("--where", self.said, reason, fix)


def ordered(rows: Iterable[RunRow], key: str) -> list[RunRow]:
    """By `key`, numbers before text; `-key` the other way round. Runs without a value come last both times."""
    name = key.removeprefix("-")
    having, lacking = [], []
    for row in rows:
        found = value(row, name)
        lacks = found is None or (isinstance(found, float) and math.isnan(found))
        (lacking if lacks else having).append((_rank(found), row))
    having.sort(key=lambda pair: pair[0], reverse=key.startswith("-"))
    return [row for _, row in (*having, *lacking)]


def every_key(row: RunRow) -> dict[str, Any]:
    """Every key that the row has, with its value: those of the index first, then what they hold and the config."""
    facts = row.facts
    found = {key: facts[key] for key in EMPTY if not isinstance(EMPTY[key], dict | list)}
    found |= runspec.flat({"evals": facts["evals"], "restarts": facts["restarts"]})
    # `method` is a fact already; its fields and its name are the config's.
    return found | {key: inner for key, inner in runspec.flat(row.config).items() if key not in NO_CONFIG}


def refuse_unknown(option: str, names: Sequence[str], rows: Sequence[RunRow]) -> None:
    """Raises InputError with the nearest key, where neither a run nor any method or cluster has one called so."""
    missing = [name for name in names if name not in EMPTY]
    missing = [name for name in missing if not any(_find(row, name) is not None for row in rows)]
    if not missing:
        return
    schema = set(_schema())
    for name in missing:
        free = name.startswith(("cluster.environment.", "cluster.additional_parameters.", "cluster.srun."))
        if name not in schema and not free:
            raise InputError.of(
                option, name, "there is no such key", _nearest(name, schema.union(*map(every_key, rows)))
            )


def _nearest(name: str, known: set[str]) -> str:
    inside = sorted(key for key in known if key.endswith(f".{name}"))
    near = inside or difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {near[0]}?" if near else "state, step, method.lr, seed and evals.knn.trained are some"


def _schema() -> Iterator[str]:
    """The keys that a run may have, whether or not one here has."""
    from launcher.spec import registry
    from launcher.spec.runspec import ContinueFrom, FromRun, InitFrom, RunSpec
    from launcher.spec.schema import ClusterConfig

    DATA, PROTOCOLS = registry.facts("data").DATA, registry.facts("evals").PROTOCOLS

    groups = [("", RunSpec), ("cluster.", ClusterConfig), ("init_from.", InitFrom), ("init_from.", FromRun)]
    groups += [("continue_from.", ContinueFrom)]
    groups += [("method.", registry.method(name).config) for name in registry.names()]
    groups += [(group, config) for config in DATA.values() for group in ("data.", "eval_data.")]
    for prefix, config in groups:
        yield from (f"{prefix}{field.name}" for field in dataclasses.fields(config))
    yield from ("identity", *EMPTY)
    yield from (f"restarts.{cause}" for cause in CAUSES)
    yield from (f"evals.{protocol}.{score}" for protocol, kind in PROTOCOLS.items() for score in kind.scores)


def _find(row: RunRow, key: str) -> Any:
    if key in row.facts:
        return row.facts[key]
    found = _walk(row.facts, key)
    return _walk(row.config, key) if found is None and key not in NO_CONFIG else found


def _walk(tree: Any, key: str) -> Any:
    """A name on the way may hold dots itself, as that of an evaluation with settings of its own."""
    if not isinstance(tree, Mapping) or key in tree:
        return tree[key] if isinstance(tree, Mapping) else None
    inside = (_walk(tree[name], key[len(name) + 1 :]) for name in tree if key.startswith(f"{name}."))
    return next((found for found in inside if found is not None), None)


def _same(found: Any, text: str) -> bool:
    if found is None:
        return text == "null"
    if isinstance(found, str):
        return found == text
    if isinstance(found, bool):
        return text.lower() == str(found).lower()
    if _is_number(found):
        return _number(text) == found or text.lower() == str(found)
    try:
        return json.loads(text) == found
    except ValueError:
        return False


def _is_number(found: Any) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _rank(found: Any) -> tuple[bool, Any]:
    if isinstance(found, int | float):
        return False, found
    return True, found if isinstance(found, str) else json.dumps(found)
