"""`sweep=<paper>/<table>` on a command line: which sweep, at which scale, with which other overrides, and its runs."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launcher.compose import evaluation, points, protocols
from launcher.errors import InputError
from launcher.spec import registry
from launcher.spec.schema import TrainConfig
from launcher.sweep import ablation
from launcher.sweep.ablation import Ablation, key_of
from launcher.sweep.columns import PATH, OurNumber, refuse_strangers

DATA = registry.facts("data").DATA

# Where and how it runs: two submissions that differ only in these are the same experiment.
PLACES = ("nodes", "tasks_per_node", "cluster", "runs", "group", "data.path", "eval_data.path", "eval_after", "probes")
JUDGES = ("method.knn_neighbours",)  # it changes the score of a run, and nothing else of it


@dataclass(frozen=True)
class Asked:
    """`given`: what was typed besides `sweep`, `recipe` and `seed`. `seed`: as typed, "" where the scale decides."""

    ablation: Ablation
    scale: str
    seed: str
    given: tuple[str, ...]
    places: tuple[str, ...] = ()  # where the data sets of the columns lie: places205.path=/mnt/places205

    def judged(self, row: ablation.PaperRow) -> OurNumber:
        """Our number of a row."""
        return self.ablation.judged(row, self.scale).at(self.places)

    @property
    def science(self) -> list[str]:
        """Those of `given` that make it another experiment, or another number of the same."""
        places = _operational(self.ablation.method)
        given = (word for word in self.given if not protocols.is_setting(word))
        return sorted(w for w in given if not (key_of(w).startswith(PLACES) or key_of(w) in places))


@dataclass(frozen=True)
class Member:
    """One run of the sweep: a row of the table under one seed."""

    row: ablation.PaperRow
    point: points.Point

    @property
    def kind(self) -> str:
        """The same for two members that differ in their seed alone."""
        return dataclasses.replace(self.point.spec, seed=0).identity


def read(words: Sequence[str], config_dir: Path | None = None) -> Asked | None:
    """What the command line asks for; None where it names no sweep. Raises InputError."""
    chosen = {key_of(word): word.partition("=")[2] for word in words}
    if "sweep" not in chosen:
        return None
    found = ablation.load(chosen["sweep"], config_dir)
    scale = chosen.get("recipe", "paper")
    found.scale(scale)
    sets = tuple(word for word in words if key_of(word).partition(".")[0] in DATA and "." in key_of(word))
    refuse_strangers(sets, (found.judged(point, scale) for point in found.points))
    given = tuple(word for word in words if key_of(word) not in ("sweep", "recipe", "seed") and word not in sets)
    for word in given:
        key, _, value = word.partition("=")
        if key_of(word) == "method":
            raise InputError.of("method", value, f"the sweep is of {found.method}", "leave it out")
        if key_of(word) in found.varied(scale):
            raise InputError.of(key, value, f"this is what {found.name} varies", "leave it out")
        if points.is_swept(word):
            fix = "give one"
            raise InputError.of(key, value, "only seed may have several values beside a table's own axis", fix)
    return Asked(found, scale, chosen.get("seed", ""), given, sets)


def members(
    asked: Asked, config_dir: Path | None = None, *, planning: bool = False
) -> tuple[list[Member], list[tuple[ablation.PaperRow, list[str]]]]:
    """(the runs, row by row; the rows that cannot run yet, each with what it lacks). Raises InputError with the row."""
    table, absent, common, there, varied = asked.ablation, [], [], [], []
    axes = table.varied(asked.scale)
    own = ablation.own_methods(config_dir)
    chosen = table.scale(asked.scale).seeds
    seeds = [f"seed={value}" for value in (points.values_of(f"seed={asked.seed}") if asked.seed else chosen)]
    for row in table.points:
        lacks = table.lacks(row, asked.scale, own)
        if lacks:
            absent.append((row, lacks))
            continue
        words = _joined(table.overrides(row, asked.scale), asked.given)
        common = [word for word in words if key_of(word) not in axes]
        mine = [word for word in words if word not in common]
        varied += [[*mine, seed] for seed in seeds]
        there += [row] * len(seeds)
    found = points.rows(common, varied, config_dir, planning=planning)
    return [Member(row, point) for row, point in zip(there, found, strict=True)], absent


def _operational(method: str) -> set[str]:
    """The method's fields that do not change its result. A method of the user's own may have others besides."""
    config = registry.method(method).config if method in registry.names() else TrainConfig
    fields = (field for field in dataclasses.fields(config) if field.metadata.get("science") is False)
    return {f"method.{field.name}" for field in fields} - {*JUDGES}


def _joined(own: Sequence[str], given: Sequence[str]) -> list[str]:
    """The table's own overrides and the typed ones, which win. Evaluations add up: the metric's, and those typed."""
    names = [_protocols(word) for word in (*own, *given) if key_of(word) == "eval_after"]
    words = ablation.merged([*own, *given])
    if len(names) < 2:
        return words
    wanted = ",".join(dict.fromkeys(name for each in names for name in each))
    return [f"eval_after=[{wanted}]" if key_of(word) == "eval_after" else word for word in words]


def _protocols(word: str) -> list[str]:
    """Of `eval_after=knn`, `eval_after=[knn,linear]` and `eval_after=null`."""
    names = (name.strip() for name in word.partition("=")[2].strip("[]").split(","))
    return [name for name in names if name not in ("", "null")]


def columns(
    asked: Asked, members: Sequence[Member], config_dir: Path | None = None
) -> dict[str, list[tuple[str, ...]]]:
    """Of each run's id the evaluations that the table's columns want, as the overrides of `sslrun eval RUN`, without
    those of data sets that are left out. Raises InputError, with the column, for one that cannot be asked for."""
    wanted: dict[str, list[tuple[str, ...]]] = {}
    for member in members:
        judged = asked.judged(member.row)
        words = tuple(judged.asked) if member.row.judged and not judged.left_out else ()
        mine = wanted.setdefault(member.point.spec.run_id, [])
        if words and words not in mine:
            try:
                evaluation.refuse_unasked(member.point.spec, words, config_dir)
            except InputError as error:
                field = f"column {member.row.series}: {error.field}"
                if not error.field.startswith(PATH):
                    raise error.about(field) from None
                fix = f"say {judged.data}.path=/where/it/lies, or {judged.data}.path=null to leave its columns out"
                raise InputError.of(field, error.value, error.reason, fix) from None
            mine.append(words)
    return wanted


def described(asked: Asked, member: Member) -> dict[str, Any]:
    """What a record and the run's own ledger say of a member."""
    return {
        "sweep": asked.ablation.name,
        "scale": asked.scale,
        "given": asked.science,
        "metric": asked.ablation.judged(member.row, asked.scale).metric,
        "axis": asked.ablation.axis,
        "series": member.row.series,
        "value": member.row.value,
        "at": asked.ablation.value_at(member.row, asked.scale),
        "seed": member.point.spec.seed,
        "kind": member.kind,
        "identity": member.point.spec.identity,
        "judges": judges(member.point.spec.to_json()),
    }


def judges(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What changes a run's scores but not its identity: asked for with other values, it is still the same run. stored:
    its spec, as JSON holds it."""
    labels = stored["eval_data"]
    return {
        "neighbours": stored["method"]["knn_neighbours"],
        "labels": labels and {key: value for key, value in labels.items() if key != "path"},
    }
