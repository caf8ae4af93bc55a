"""A table of a paper as a sweep: `sweeps/<paper>/<table>.yaml`, typed and checked. sweeps/README.md tells the format.

Reading one composes nothing and imports no method: `sslrun sweep list` reads them all.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launcher.compose import yamlfile
from launcher.errors import InputError, unknown
from launcher.spec import registry
from launcher.sweep.columns import METRIC, OWN_SCORES, Columns, OurNumber, spread

FOLDER = "sweeps"
VALUE = "{value}"  # in an override: the value of the axis
KEY = re.compile(r"[+~]{0,2}[a-z_][\w.]*=", re.IGNORECASE)


@dataclass
class Scale:
    """How the sweep runs at one scale: what `recipe=NAME` on the command line chooses."""

    metric: str = "???"  # protocol.score, as in `sslrun show`: linear.top1
    recipe: str | None = None  # of the method; the scale's own name by default
    fixed: list[str] = field(default_factory=list)  # overrides
    seeds: list[int] = field(default_factory=lambda: [0])
    gpu_hours: float | None = None  # of all points, one seed each
    minutes: float | None = None  # likewise, on this machine


@dataclass
class PaperRow:
    """One row of the table."""

    value: Any  # of the axis, as the paper writes it
    paper: float | None = None  # the paper's number, where it prints one
    sets: Any = ()  # overrides, besides those of the axis
    needs: Any = ()  # methods, evaluations and backbones without which it cannot run
    series: str = ""  # the curve that it belongs to, where the table has several
    judged: dict[str, Any] = field(default_factory=dict)  # scale -> its `OurNumber`, where the table has columns
    at: dict[str, Any] = field(default_factory=dict)  # scale -> the value that stands for it there; see README


@dataclass
class Ablation:
    """A table. `name` is what `sweep=` chooses: <paper>/<table>."""

    name: str = ""
    paper: str = "???"
    table: str = "???"
    section: str = ""
    page: int | None = None
    claim: str = "???"
    numbers: str = "???"  # what the paper's numbers are
    method: str = "???"
    axis: str = "???"
    sets: Any = ()  # overrides that hold {value}
    fixed: list[str] = field(default_factory=list)  # overrides, at every scale
    scales: dict[str, Scale] = field(default_factory=dict)
    points: list[PaperRow] = field(default_factory=list)

    @property
    def source(self) -> str:
        """Where the paper's numbers stand."""
        section = f"section {self.section}" if self.section else ""
        page = f"page {self.page}" if self.page is not None else ""
        return ", ".join(filter(None, (self.paper, self.table, section, page)))

    def scale(self, name: str) -> Scale:
        """Raises InputError with those that there are."""
        if name not in self.scales:
            unknown("recipe", name, self.scales)
        return self.scales[name]

    def value_at(self, point: PaperRow, scale: str) -> Any:
        """The value that the point has at `scale`."""
        return _stand_in(point, scale)[0]

    def judged(self, point: PaperRow, scale: str) -> OurNumber:
        """Our number of the point."""
        return point.judged.get(scale) or OurNumber(self.scale(scale).metric)

    def overrides(self, point: PaperRow, scale: str) -> list[str]:
        """The command line of the point at `scale`, without its seed; of a key that is given twice, the latter."""
        chosen, (value, own) = self.scale(scale), _stand_in(point, scale)
        words = [f"method={self.method}", f"recipe={chosen.recipe or scale}", *self.fixed, *chosen.fixed]
        protocol = chosen.metric.partition(".")[0]
        if not point.judged and protocol in registry.facts("evals").PROTOCOLS and protocol not in OWN_SCORES:
            words.append(f"eval_after={protocol}")
        words += [*self.sets, *point.sets, *own]
        return merged(word.replace(VALUE, written(value)) for word in words)

    def varied(self, scale: str) -> set[str]:
        """Keys that distinguish its points at `scale`."""
        own = (word for point in self.points for word in (*point.sets, *_stand_in(point, scale)[1]))
        return {key_of(word) for word in (*self.sets, *own)}

    def lacks(self, point: PaperRow, scale: str, own: Iterable[str] = ()) -> list[str]:
        """Methods, evaluations and backbones that the point needs at `scale` and that are not here, nor one's `own`."""
        method = next(w for w in self.overrides(point, scale) if w.startswith("method="))
        wanted = [method.partition("=")[2], self.judged(point, scale).protocol, *point.needs]
        here = (registry.names(), registry.facts("evals").PROTOCOLS, registry.facts("backbones").BACKBONES)
        known = {*chain(*here), *OWN_SCORES, *own}
        return list(dict.fromkeys(name for name in wanted if name not in known))


def names(config_dir: Path | None = None) -> dict[str, Path]:
    """Every sweep: <paper>/<table> -> its file. One's own, in `config_dir`/sweeps, go before those that ship."""
    folders = [Path(str(files(FOLDER)))] + ([config_dir / FOLDER] if config_dir else [])
    found = {f"{file.parent.name}/{file.stem}": file for folder in folders for file in folder.glob("*/*.yaml")}
    return dict(sorted(found.items()))


def own_methods(config_dir: Path | None) -> list[str]:
    """Recipes of the user's own that extend a method under another name."""
    return [file.stem for file in (config_dir / "method").glob("*.yaml")] if config_dir else []


def load(name: str, config_dir: Path | None = None) -> Ablation:
    """The sweep called `name`. Raises InputError, one line, when there is none or its file cannot be used."""
    known = names(config_dir)
    if name not in known:
        unknown("sweep", name, known)
    return read(name, known[name])


def read(name: str, file: Path) -> Ablation:
    """The sweep that `file` holds. Raises InputError with the file, the field and the fix."""
    try:
        given = yamlfile.read(file)
        if not isinstance(given, dict):
            raise ValueError("it holds no keys")
        shared = _column(given, file) if "rows_of" in given else {}
        points = given.pop("points", None)
        if "columns" in given:
            points = spread(given.pop("columns"), points, given.get("scales"))
        ablation = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Ablation), shared, given, {"name": name}))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
        raise InputError(f"{file}: {_reason(error)}; see sweeps/README.md for the format") from None
    try:
        # Through the schema, too, they would take as long again as all else.
        ablation.points = [_point(f"points[{number}]", row) for number, row in enumerate(points or ())]
        return _checked(ablation)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _column(given: dict[str, Any], file: Path) -> dict[str, Any]:
    """What another sweep of the folder says, of whose table `given` is another column: `given` gets its rows, with the
    numbers of its own `papers`. Raises ValueError where the two do not fit."""
    other, papers = given.pop("rows_of"), given.pop("papers", None)
    beside = file.parents[1] / f"{other}.yaml"
    shared = yamlfile.read(beside) if beside.is_file() else None
    rows = shared.pop("points", None) if isinstance(shared, dict) else None
    if "points" in given or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"rows_of={other}: it takes the points of {beside}, and has none of its own")
    series = [row.get("series", "") for row in rows]
    counts = {name: series.count(name) for name in series}
    lists = isinstance(papers, dict) and all(isinstance(numbers, list) for numbers in papers.values())
    if not lists or {name: len(numbers) for name, numbers in papers.items()} != counts:
        raise ValueError(f"papers={papers}: of each series a list of numbers or null, so many of {other}: {counts}")
    left = {name: iter(numbers) for name, numbers in papers.items()}
    given["points"] = [{**row, "paper": next(left[name])} for row, name in zip(rows, series, strict=True)]
    return shared


def _point(where: str, given: Any) -> PaperRow:
    known = {field.name for field in dataclasses.fields(PaperRow)} - {"judged"}
    if not isinstance(given, dict) or "value" not in given:
        raise InputError.of(where, given, "it has no value", "write it like {value: 3000, paper: 73.9}")
    of_columns = given["judged"] if isinstance(given.get("judged"), Columns) else {}
    for key in given:
        if key not in known and not (of_columns and key == "judged"):
            fix = f"use {', '.join(sorted(known))}"
            raise InputError.of(f"{where}.{key}", given[key], "there is no such key", fix)
    number = given.get("paper")
    counts = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if number is not None and not counts:
        raise InputError.of(f"{where}.paper", number, "it is no number", "give the paper's, or leave it out")
    if not isinstance(given.get("at", {}), dict):
        raise InputError.of(f"{where}.at", given["at"], "it names no scale", "write it like {demo: 30}")
    return PaperRow(**{**given, "series": str(given.get("series", "")), "judged": of_columns})


def _reason(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark:
        return f"line {mark.line + 1}: {error.problem}"
    from launcher.compose.overrides import refusal

    return str(refusal(error))


def merged(words: Iterable[str]) -> list[str]:
    """Overrides, each key once: the last that was said of it."""
    return list({key_of(word): word for word in words}.values())


def key_of(word: str) -> str:
    return word.partition("=")[0].lstrip("+~")


def written(value: Any) -> str:
    """A value of the axis as an override has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _stand_in(point: PaperRow, scale: str) -> tuple[Any, Sequence[str]]:
    """(the point's value at `scale`, the overrides that it sets there alone)."""
    given = point.at.get(scale, point.value)
    if isinstance(given, Mapping):
        return given.get("value", point.value), _listed(f"at.{scale}.sets", given.get("sets", ()))
    return given, ()


def _checked(ablation: Ablation) -> Ablation:
    ablation.sets = _listed("sets", ablation.sets)
    if not ablation.points:
        raise InputError.of("points", "[]", "it has none", "give one a row of the table")
    if not {"paper", "demo"} <= {*ablation.scales}:
        raise InputError.of("scales", ", ".join(ablation.scales) or "{}", "it needs paper and demo", "add what lacks")
    for name, scale in ablation.scales.items():
        _check_scale(f"scales.{name}", scale)
    for number, point in enumerate(ablation.points):
        _check_point(f"points[{number}]", point, ablation)
    _check_words("fixed", ablation.fixed)
    _check_words("sets", ablation.sets)
    for word in ablation.sets:
        if VALUE not in word:
            raise InputError.of("sets", word, f"it holds no {VALUE}, so it varies nothing", "move it to `fixed`")
    _refuse_twins(ablation)
    return ablation


def _check_scale(where: str, scale: Scale) -> None:
    _check_words(f"{where}.fixed", scale.fixed)
    if not METRIC.fullmatch(scale.metric):
        raise InputError.of(f"{where}.metric", scale.metric, "it is protocol.score", "write it like knn.trained")
    if not scale.seeds or min(scale.seeds) < 0 or len({*scale.seeds}) < len(scale.seeds):
        raise InputError.of(f"{where}.seeds", scale.seeds, "they are different numbers from 0 on", "give [0] or more")
    cost = scale.minutes if scale.gpu_hours is None else scale.gpu_hours
    if cost is None or cost <= 0 or (scale.gpu_hours is not None and scale.minutes is not None):
        raise InputError.of(f"{where}.gpu_hours", cost, "it does not say what it costs", "give gpu_hours or minutes")


def _check_point(where: str, point: PaperRow, ablation: Ablation) -> None:
    _check_value(f"{where}.value", point.value)
    point.sets, point.needs = _listed(f"{where}.sets", point.sets), _listed(f"{where}.needs", point.needs)
    _check_words(f"{where}.sets", point.sets)
    for scale, given in point.at.items():
        if scale not in ablation.scales:
            raise InputError.of(f"{where}.at", scale, "there is no such scale", f"use {', '.join(ablation.scales)}")
        if isinstance(given, Mapping) and set(given) - {"value", "sets"}:
            raise InputError.of(f"{where}.at.{scale}", dict(given), "it holds value and sets", "leave out the rest")
        try:
            value, words = _stand_in(point, scale)
        except InputError as error:
            raise error.about(f"{where}.{error.field}") from None
        _check_value(f"{where}.at.{scale}", value)
        _check_words(f"{where}.at.{scale}.sets", words)


def _check_value(where: str, value: Any) -> None:
    if isinstance(value, list | dict) or value is None:
        raise InputError.of(where, value, "it is no number and no name", "give one of these")


def _check_words(where: str, words: Sequence[str]) -> None:
    for word in words:
        if not isinstance(word, str) or not KEY.match(word):
            raise InputError.of(where, word, "it is no override", "write key=value")


def _refuse_twins(ablation: Ablation) -> None:
    """Two points that are the same run would be one row shown twice; two of one name, one row with the runs of both."""
    named: set[tuple[str, str]] = set()
    for number, point in enumerate(ablation.points):
        if (point.series, str(point.value)) in named:
            where, reason = f"points[{number}].value", "a point before it is called so, too"
            raise InputError.of(where, point.value, reason, "give it another name, or another `series`")
        named.add((point.series, str(point.value)))
    for scale in ablation.scales:
        seen: dict[tuple[Any, ...], Any] = {}
        for point in ablation.points:
            words = (*sorted(ablation.overrides(point, scale)), ablation.judged(point, scale))
            if words in seen:
                reason = f"at scale {scale} it is the same run as {seen[words]}"
                raise InputError.of("points", point.value, reason, "give `at`, or leave one out")
            seen[words] = point.value


def _listed(where: str, given: Any) -> list[str]:
    """`byol`, `[byol, linear]` and nothing. Raises InputError for anything else."""
    listed = [given] if isinstance(given, str) else given or ()
    if not isinstance(listed, list | tuple) or not all(isinstance(text, str) for text in listed):
        raise InputError.of(where, given, "it is no text and no list of texts", "write it like [one, another]")
    return list(listed)
