"""Runs by one of their scores, the best first: which have it, how it is called, and what tells them apart."""

import difflib
import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from launcher.errors import InputError
from launcher.report import listing
from launcher.report.index import RunRow
from launcher.report.listing import Column
from launcher.report.query import NO_CONFIG
from launcher.run.folder import RunDir
from launcher.spec import registry
from launcher.spec.runspec import flat

LISTED = 30  # scores that one line names
HINTED = 3  # names of other settings that one line names
OWN_COLUMNS = ("recipe", "method.name", *NO_CONFIG)
# Where a run lies and runs, what is computed beside its training, and what stands for a path that is shown.
NO_MATTER = ("cluster", "nodes", "least_nodes", "tasks_per_node", "runs", "group", "eval_after", "probes", "identity")
DIGESTS = ("digest", "identity")


@dataclass(frozen=True)
class Placed:
    """A run in the list. `step`: that was judged; None where its ledger cannot be read any more. `differs`: {field: its
    value} of those that tell the runs of the list apart."""

    row: RunRow
    metric: str
    value: float
    step: int | None
    differs: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Of the answer of `--json`."""
        facts = {name: self.row.facts[name] for name in ("id", "path", "method", "state")}
        found = {"metric": self.metric, "value": self.value, "step": self.step, "differs": dict(self.differs)}
        return {**facts, "recipe": self.row.config.get("recipe"), **found}


def named(metric: str, rows: Sequence[RunRow]) -> tuple[str, str]:
    """(protocol, score) that `metric` means: protocol.score, or a protocol, whose first score it is then; with
    settings and data in the protocol's name where scores stand under such a one. Raises InputError with the scores that
    there are, where neither a run of `rows` nor a protocol has one called so."""
    said = metric.removeprefix("evals.")
    there = sorted({name for row in rows for name in row.facts["evals"]})
    if said in there or said in _protocols():
        found = [name for row in rows for name in numbers(row, said)]
        usual = [name for name in _scores(said) if name in found or not found]
        if first := next(iter([*usual, *found]), ""):
            return said, first
    for protocol in there:
        score = said.removeprefix(f"{protocol}.")
        if score != said and any(score in numbers(row, protocol) for row in rows):
            return protocol, score
    protocol, _, score = said.partition(".")
    if score in _scores(protocol):
        return protocol, score
    raise InputError.of("METRIC", metric, "there is no such score", _there(said, rows))


def placed(
    metric: tuple[str, str], rows: Iterable[RunRow], *, smallest: bool = False, last: int | None = None
) -> list[Placed]:
    """The runs of `rows` that have this score, each with its newest, the largest first. `last`: only the so many of
    them that were started last."""
    protocol, score = metric
    found = [(row, numbers(row, protocol)[score]) for row in rows if score in numbers(row, protocol)]
    if last is not None:
        found = sorted(found, key=lambda pair: pair[0].facts["started"] or 0, reverse=True)[:last]
    found.sort(key=lambda pair: (pair[1] if smallest else -pair[1], pair[0].facts["id"]))
    apart = _apart([row for row, _ in found])
    return [
        Placed(row, f"{protocol}.{score}", value, _step(row, protocol), differs)
        for (row, value), differs in zip(found, apart, strict=True)
    ]


def alike(protocol: str, rows: Iterable[RunRow]) -> list[str]:
    """What the scores of this protocol with other settings, or on other data, stand under: sgd(epochs=5)."""
    names = {name for row in rows for name in row.facts["evals"]} - {protocol}
    return sorted(name for name in names if name.startswith((f"{protocol}(", f"{protocol}:")))


def texts(
    found: Sequence[Placed], metric: str, total: int, folder: Path, width: int, others: Sequence[str] = ()
) -> Iterator[Text]:
    """The table in `width` characters, and of how many runs of `folder` it is; where it is of none, which `others` to
    ask for. What a run's id tells anyway, its method and recipe, stands beside it where there is room."""
    rows = [RunRow({**each.row.facts, "placed": each}) for each in found]
    columns = [
        Column("run", 0, lambda f: f["id"]),
        Column("method", 3, lambda f: f["method"]),
        Column("recipe", 4, lambda f: str(f["placed"].row.config.get("recipe") or "")),
        Column(metric, 0, lambda f: f"{f['placed'].value:.6g}", right=True),
        Column("step", 1, lambda f: "" if f["placed"].step is None else str(f["placed"].step), right=True),
        Column("differs in", 2, lambda f: _said(f["placed"].differs), short=True),
    ]
    if rows:
        yield listing.lines(rows, *listing.that_fit(rows, width, columns))
    said = f"{len(found)} of {total} runs in {folder} have {metric}" if total else f"no runs in {folder}"
    yield Text(f"{said}\n", style="dim", no_wrap=True, end="")
    if others and not found:
        more = f" and {len(others) - HINTED} more" if len(others) > HINTED else ""
        names = ", ".join(map(shlex.quote, others[:HINTED]))
        yield Text(f"there are scores of other settings or data: {names}{more}\n", style="dim", end="")


def _protocols() -> Mapping[str, Any]:
    return registry.facts("evals").PROTOCOLS


def _scores(protocol: str) -> Mapping[str, str]:
    """Those that a protocol says to have, whatever its settings and data."""
    known = _protocols().get(protocol.partition("(")[0].partition(":")[0])
    return known.scores if known else {}


def numbers(row: RunRow, protocol: str) -> dict[str, float]:
    """{score: number}; of one that several settings gave, each behind the score's name and a dot."""
    scores = row.facts["evals"].get(protocol)
    found = flat(scores) if isinstance(scores, Mapping) else {}
    found = {name: value for name, value in found.items() if isinstance(value, int | float)}
    return {name: value for name, value in found.items() if not isinstance(value, bool) and math.isfinite(value)}


def _there(said: str, rows: Sequence[RunRow]) -> str:
    """What to type in its place."""
    known = {f"{name}.{score}" for row in rows for name in row.facts["evals"] for score in numbers(row, name)}
    if not known:
        return "no run there has any yet: `sslrun eval RUN protocol=NAME` judges one"
    near = difflib.get_close_matches(said, sorted(known), n=1, cutoff=0.6)
    whole = {f"{name}.{score}" for row in rows for name, found in row.facts["evals"].items() for score in found}
    listed = sorted(known, key=lambda name: (name not in near, name not in whole, name))  # of classes and rates: last
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return f"there are {', '.join(listed[:LISTED])}{more}"


def _apart(rows: Sequence[RunRow]) -> Iterator[dict[str, Any]]:
    """Of each run the fields in which not all agree that have them: of methods those of one method and recipe, which
    differ from others in nearly all; of data, seeds and weights all."""
    fields = [{name: value for name, value in flat(row.config).items() if _counts(name)} for row in rows]
    groups = [(row.facts["method"], row.config.get("recipe")) for row in rows]
    values: dict[Any, set[str]] = {}
    for own, group in zip(fields, groups, strict=True):
        for name, value in own.items():
            values.setdefault(_among(name, group), set()).add(json.dumps(value))
    for own, group in zip(fields, groups, strict=True):
        yield {name: value for name, value in own.items() if len(values[_among(name, group)]) > 1}


def _among(name: str, group: tuple[str, str]) -> tuple[str, ...]:
    return (name, *group) if name.startswith("method.") else (name,)


def _counts(name: str) -> bool:
    return (
        name not in OWN_COLUMNS and name.partition(".")[0] not in NO_MATTER and name.rpartition(".")[2] not in DIGESTS
    )


def _step(row: RunRow, protocol: str) -> int | None:
    try:
        judged = RunDir(row.facts["path"]).history().judged()
    except (InputError, OSError):
        return None
    return next((event["step"] for event in reversed(judged) if event["protocol"] == protocol), None)


def _said(differs: Mapping[str, Any]) -> str:
    """As an override has it, but for the group of the method, which all have."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in differs.items()}
    return ", ".join(f"{name.removeprefix('method.')}={text}" for name, text in texts.items())
