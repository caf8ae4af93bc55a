"""A paper's table with our numbers in it: which runs belong to a sweep, where they stand and what they scored."""

import dataclasses
import functools
import math
import operator
import shlex
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from launcher.compose import evaluation, points, protocols
from launcher.compose.overrides import refusal, text_of
from launcher.errors import InputError, SslrunError, unknown
from launcher.report import trend
from launcher.report.index import RunIndex, RunRow
from launcher.run.at_once import Show
from launcher.run.files import read_json
from launcher.run.folder import RunDir
from launcher.slurm import queue, reasons
from launcher.spec import registry
from launcher.sweep import record
from launcher.sweep.ablation import Ablation, PaperRow
from launcher.sweep.asked import Asked, judges
from launcher.sweep.columns import OurNumber

DATA, images_of = registry.facts("data").DATA, registry.facts("evals").images_of

# What deserves a look first. Besides the states of a run: `absent`, nobody asked for it; `gone`, its folder is;
# `damaged`, it cannot be read; `unjudged`, done without the number that the table is about.
STATES = (
    "failed", "damaged", "gone", "cancelled", "stopped", "not submitted", "preempted", "running", "pending", "unjudged",
    "absent", "done",
)  # fmt: skip
NOT_YET = "not here yet"
SAID = {"absent": "not run", "unjudged": "not evaluated"}  # in words for people


@dataclass(frozen=True)
class Run:
    """One seed of one point. Hours are of all its starts together."""

    seed: int
    state: str
    id: str = ""
    path: str = ""
    message: str = ""
    score: float | None = None
    step: int = 0
    steps: int = 0
    hours: float = 0.0
    gpu_hours: float = 0.0
    restarts: int = 0


@dataclass(frozen=True)
class TableRow:
    """One point. `value`: of the axis as the paper has it; `at`: at this scale."""

    value: Any
    at: Any
    series: str
    paper: float | None
    lacks: tuple[str, ...]
    runs: tuple[Run, ...]
    metric: str = ""  # what our number is, where the table has columns

    @property
    def scores(self) -> list[float]:
        return [run.score for run in self.runs if run.score is not None]

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.scores) if self.scores else None

    @property
    def std(self) -> float | None:
        """Between seeds: the sample's; None for fewer than two."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None

    @property
    def difference(self) -> float | None:
        return None if self.paper is None or self.mean is None else self.mean - self.paper

    @property
    def state(self) -> str:
        if self.lacks and not any(run.id for run in self.runs):
            return NOT_YET
        return min((run.state for run in self.runs), key=STATES.index, default="absent")


@dataclass(frozen=True)
class Table:
    """`given`: the overrides that the runs were submitted with; `others`: those of other submissions in the folder.
    `notes`: what a reader must know besides."""

    ablation: Ablation
    scale: str
    given: tuple[str, ...]
    others: tuple[tuple[str, ...], ...]
    rows: tuple[TableRow, ...]
    notes: tuple[str, ...]
    folder: Path

    @functools.cached_property
    def trend(self) -> trend.Trend:
        """Of a table with columns each has its own."""
        columns = list(dict.fromkeys(row.series for row in self.rows if row.metric))
        if not columns:
            return trend.of([row.paper for row in self.rows], [row.scores for row in self.rows])
        of_each = {name: [row for row in self.rows if row.series == name] for name in columns}
        found = {name: trend.of([r.paper for r in rows], [r.scores for r in rows]) for name, rows in of_each.items()}
        said = "\n".join(f"{name}: {each.sentence}" for name, each in found.items())
        return trend.Trend(sum(each.points for each in found.values()), None, None, None, said)

    @property
    def metric(self) -> str:
        """Our number; of a table with columns, of each."""
        of_each = {row.series: row.metric for row in self.rows if row.metric}
        if len({*of_each.values()}) < 2:
            return next(iter(of_each.values()), self.ablation.scale(self.scale).metric)
        return ", ".join(f"{metric} ({name})" for name, metric in of_each.items())

    @property
    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]

    def to_json(self) -> dict[str, Any]:
        """The answer of `--json`."""
        rows = [
            {
                "value": row.value, "at": row.at, "series": row.series, "paper": row.paper, "mean": row.mean,
                **({"metric": row.metric} if row.metric else {}),
                "std": row.std, "difference": row.difference, "state": row.state, "lacks": list(row.lacks),
                "runs": [dataclasses.asdict(run) for run in row.runs],
            }
            for row in self.rows
        ]  # fmt: skip
        return {
            "sweep": self.ablation.name, "scale": self.scale, "metric": self.metric, "given": list(self.given),
            "points": rows, "spearman": self.trend.rho, "verdict": self.trend.sentence, "notes": list(self.notes),
        }  # fmt: skip


def gather(asked: Asked, folder: Path, own: Sequence[str] = (), show: Show | None = None) -> Table:
    """The table of what is asked for, from the runs of `folder`. `own`: methods of the user's own. `show`: as of
    bar.Bar.

    Where no overrides are asked for and it was never submitted without, those of the newest submission count. Raises
    InputError where it was submitted with others than those asked for only.
    """
    table, known = asked.ablation, record.rows_of(folder, asked.ablation.name, asked.scale)
    known = _of_path(known, asked, folder)
    kinds = list(dict.fromkeys(tuple(row["given"]) for row in reversed(known)))  # newest first
    given = tuple(asked.science) if asked.science or () in kinds else kinds[0] if kinds else ()
    if asked.science and given not in kinds:
        there = " or ".join(" ".join(kind) or "nothing besides" for kind in kinds) or "none at all"
        words = " ".join(given)
        raise InputError(f"{words}: no such submission of {table.name} in {folder}; there is one with {there}")
    mine, older = _newest([row for row in known if tuple(row["given"]) == given])
    seeds = sorted({row["seed"] for row in mine.values()}) or list(table.scale(asked.scale).seeds)
    if asked.seed:
        seeds = [_seed(text) for text in points.values_of(f"seed={asked.seed}")]
    found = _Finder(folder, {row["run"] for row in mine.values()}, show)
    rows = []
    for point in table.points:
        here = [mine.get((point.series, str(point.value), seed)) for seed in seeds]
        wanted = _Wanted.of(asked.judged(point))
        runs = [_run(wanted, seed, row, found) for seed, row in zip(seeds, here, strict=True)]
        at = next((row["at"] for row in here if row), table.value_at(point, asked.scale))
        lacks = tuple(table.lacks(point, asked.scale, own))
        metric = wanted.number.metric if point.judged else ""
        rows.append(TableRow(point.value, at, point.series, point.paper, lacks, tuple(runs), metric))
    notes = _notes(table.points, mine, older, found.trouble)
    return Table(table, asked.scale, given, tuple(k for k in kinds if k != given), tuple(rows), notes, folder)


def _of_path(rows: Sequence[Mapping[str, Any]], asked: Asked, folder: Path) -> list[Mapping[str, Any]]:
    """Those whose runs read the images of `data.path`, where that is asked for: the same folder elsewhere is the same
    experiment to whoever asks for none."""
    typed = [text_of(word) for word in asked.given if word.startswith("data.path=")]
    if not typed:
        return list(rows)
    wanted = Path(typed[-1]).expanduser().resolve()
    whose = {name: _in_spec(folder / name / "spec.json", "data", "path") for name in {row["run"] for row in rows}}
    return [row for row in rows if not whose[row["run"]] or Path(whose[row["run"]]).resolve() == wanted]


def _in_spec(file: Path, *keys: str) -> Any:
    """What a run's spec.json holds under `keys`; None where it cannot be read."""
    try:
        return functools.reduce(operator.getitem, keys, read_json(file))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise InputError.of("seed", text, "it is no seed", "give a whole number, 0 or more")
    return int(text)


def _newest(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[tuple[str, str, int], Mapping[str, Any]], int]:
    """(the newest row of each point and seed; how many are left out because the point has changed since)."""
    kinds: dict[tuple[str, str], str] = {}
    for row in rows:  # oldest first
        kinds[row["series"], str(row["value"])] = row["kind"]
    mine = {}
    for row in rows:
        if row["kind"] == kinds[row["series"], str(row["value"])]:
            mine[row["series"], str(row["value"]), row["seed"]] = row
    kept = {row["run"] for row in mine.values()}
    return mine, len({row["run"] for row in rows} - kept)


def _notes(points: Sequence[PaperRow], mine: Mapping[tuple[str, str, int], Any], older: int, trouble: str) -> tuple:
    rows = {(point.series, str(point.value)) for point in points}
    strays = sum((series, value) not in rows for series, value, _ in mine)
    notes = []
    if older:
        notes.append(f"{older} runs of these points as they were defined before are left out.")
    if strays:
        notes.append(f"{strays} runs are of points that the table no longer has.")
    return (*notes, trouble) if trouble else tuple(notes)


class _Finder:
    """What became of the runs, and where they lie now; one that was moved is known by its identity."""

    def __init__(self, folder: Path, names: Collection[str], show: Show | None):
        self._folder = folder
        self._rows, self.trouble = RunIndex(folder, config=True, work=True, only=names).by_name(show)

    def find(self, row: Mapping[str, Any]) -> tuple[RunDir, RunRow] | None:
        name = row["run"]
        if name not in self._rows:
            name = self._moved.get(row["identity"])
            if name and name not in self._rows:
                self._rows |= RunIndex(self._folder, config=True, work=True, only=[name]).by_name()[0]
        return (RunDir(self._folder / name), self._rows[name]) if name in self._rows else None

    @functools.cached_property
    def _moved(self) -> dict[Any, str]:
        return {_in_spec(file, "identity"): file.parent.name for file in self._folder.glob("*/spec.json")}

    @functools.cached_property
    def jobs(self) -> Any:
        """The queue, where an evaluation of a run may be in it."""
        every = (each for name in self._rows for each in evaluation.every(RunDir(self._folder / name)))
        jobs, trouble = queue.of_runs(every)
        self.trouble = self.trouble or trouble
        return jobs


@dataclass(frozen=True)
class _Wanted:
    """Our number of a row, and what its images are called where they are of its own: inaturalist(year=2019)."""

    number: OurNumber
    images: str

    @classmethod
    def of(cls, number: OurNumber) -> "_Wanted":
        """Raises InputError for what a data set does not have."""
        if number.data not in DATA:  # the run's own, or one of the user's own
            return cls(number, number.data)
        known = {field.name for field in dataclasses.fields(DATA[number.data])}
        for key in number.of_data.keys() - known:
            unknown(
                f"{number.data}.{key}", number.of_data[key], [f"{number.data}.{name}" for name in known], what="key"
            )
        said = OmegaConf.from_dotlist([f"{key}={value}" for key, value in number.of_data.items()])
        try:
            return cls(number, images_of(OmegaConf.to_object(OmegaConf.merge(DATA[number.data], said))))
        except OmegaConfBaseException as error:
            raise refusal(error) from None

    def on(self, each: RunDir) -> bool:
        """Whether an evaluation judges on these images; one that is gone may have."""
        there = _in_spec(each.path / "spec.json", "eval_data")
        if there is None or not self.images:
            return True
        try:
            return images_of(DATA[there["name"]](**there)) == self.images
        except (KeyError, TypeError):  # of another version
            return False

    def asked_of(self, each: RunDir, backbone: str) -> bool:
        """Whether an evaluation was to give this number: its protocol with these settings, on these images."""
        name = self.number.protocol
        if name not in each.path.name.rpartition("-")[0].split("+") or not self.on(each):
            return False
        try:
            there = protocols.filled(evaluation.asked_of(each)["settings"])
        except (OSError, ValueError, KeyError, InputError):  # from before there were any, or damaged
            return True
        return there.get(name) == protocols.taken(self.number.asked or [f"protocol={name}"], backbone)[0][name]


def _run(wanted: _Wanted, seed: int, row: Mapping[str, Any] | None, finder: _Finder) -> Run:
    if row is None:
        return Run(seed, "absent")
    there = finder.find(row)
    if there is None:
        return Run(seed, "gone", row["run"], message=f"its folder {row['run']} is gone")
    found, told = there
    if told.damaged:
        message = told.facts["message"].removeprefix("damaged: ")
        return Run(seed, "damaged", found.id, str(found.path), message)
    try:
        return _read(found, told, seed, wanted, row, finder)
    except (SslrunError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = str(error) if isinstance(error, SslrunError) else f"{type(error).__name__}: {error}"
        return Run(seed, "damaged", found.id, str(found.path), " ".join(said.split()))


def _read(found: RunDir, told: RunRow, seed: int, wanted: _Wanted, row: Mapping[str, Any], finder: _Finder) -> Run:
    facts, events = told.facts, told.work["judged"]
    state, message, backbone = facts["state"], facts["message"], told.config["method"].get("backbone")
    if any("by" in event for event in events):  # one of other images of the same data set is not its number
        others = {f"evals/{each.path.name}" for each in evaluation.every(found) if not wanted.on(each)}
        events = [event for event in events if event.get("by") not in others]
    score = _score(told.config, {e["protocol"]: e for e in events}, wanted, row)
    if state == "done" and score is None:
        state, message = _unjudged(found, wanted, backbone, finder)
    return Run(
        seed, state, found.id, str(found.path), message,
        score if facts["state"] == "done" else None,
        facts["step"], facts["steps"], told.work["seconds"] / 3600, told.work["gpu_seconds"] / 3600,
        sum(facts["restarts"].values()),
    )  # fmt: skip


def _unjudged(found: RunDir, wanted: _Wanted, backbone: str, finder: _Finder) -> tuple[str, str]:
    """(state, message) of a run that is done and has no score: those of the evaluation that was to give it one."""
    asked = [each for each in evaluation.every(found) if wanted.asked_of(each, backbone)]
    there = asked[-1].state(finder.jobs) if asked else None
    if there is None or there.name == "done":
        words = shlex.join(wanted.number.asked or [f"protocol={wanted.number.protocol}"])
        return "unjudged", f"`sslrun eval {found.typed} {words}` judges it"
    said = there.message or reasons.of(there.why_pending).short()
    return there.name, f"trained; its evaluation evals/{asked[-1].path.name} is {there.name}{said and ': '}{said}"


def _score(
    config: Mapping[str, Any], evals: Mapping[str, Any], wanted: _Wanted, row: Mapping[str, Any]
) -> float | None:
    """The number that was asked for. How a run is judged while it trains is no part of its identity: one that somebody
    launched to be judged otherwise is the same run, and has another number."""
    judged, own = wanted.number, judges(config)
    name, by = judged.score, own | row.get("judges", {})
    if by["labels"] != own["labels"]:
        return None
    if judged.metric == "knn.trained" and by["neighbours"] != own["neighbours"]:
        name = f"k{by['neighbours']}"
    called = protocols.called_as(judged.asked, config["method"]["backbone"]) if judged.asked else judged.protocol
    beside = [f"{called}:{each}" for each in (wanted.images, judged.data) if each]  # the latter by older versions
    event = next((evals[each] for each in beside if each in evals), None)
    if event is None and called in evals:  # on the run's own labels, or those that it was first judged with
        on = evals[called].get("data", (config["eval_data"] or config["data"])["name"])
        event = evals[called] if on in (wanted.images, judged.data) or not judged.data else None
    score = event["scores"].get(name) if event else None
    known = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    return float(score) if known else None
