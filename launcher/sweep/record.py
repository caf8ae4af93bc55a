"""A multirun: every point a run of its own, frozen now, submitted as one array; the same command runs what is missing.

<runs>/.sweeps/<id>.json    the command, and the run of every point; of a paper's table also the row of each

What such a record says of a run, the run's own ledger says too, so that a run which is moved takes it along.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.plan import plan as planning
from launcher.run import snapshot
from launcher.run.at_once import Show, at_once, shown
from launcher.run.files import NotOurs, write_json
from launcher.run.folder import RunDir, every
from launcher.run.ledger import Ledger
from launcher.run.shapes import IN_A_TABLE, RECORD
from launcher.spec.planned import Planned
from launcher.spec.runspec import MASK
from launcher.start import stages

if TYPE_CHECKING:
    from launcher.compose.points import Point

FOLDER = ".sweeps"


def members(name: str, folder: Path) -> list[RunDir] | None:
    """The runs of the sweep called `name` (or uniquely beginning so); None when there is no such sweep."""
    found = sorted((folder / FOLDER).glob("*.json"))
    found = [f for f in found if f.stem == name] or [f for f in found if f.stem.startswith(name) and "sweep" in name]
    if len(found) != 1:
        return None
    return [RunDir(folder / _inside(point["run"])) for point in RECORD.read(found[0])["points"]]


def create(points: "list[Point]", show: Show | None = None) -> list[RunDir]:
    """The run of every point, on disk. Nothing is written before every point is known to be good."""
    runs = [RunDir(Path(point.spec.runs) / point.spec.run_id) for point in points]
    new = {run.path: point for run, point in zip(runs, points, strict=True) if not _is_there(run)}
    stages.check(point.spec for point in new.values())
    plans: dict[Path, Planned] = {}
    checked = set()
    for run, point in shown(zip(runs, points, strict=True), "planning runs", len(runs), show):
        spec = point.spec
        kind = spec.cluster.kind == "slurm" and (repr(spec.cluster), spec.asked_nodes, spec.tasks_per_node)
        if run.path in new or (kind and kind not in checked):
            plans[run.path] = planning.make(spec, point.recipe)
        if kind and kind not in checked:
            from launcher.start import submit

            submit.check(spec, plans[run.path])
            checked.add(kind)
    take = cache(snapshot.take)

    def make(path: Path) -> None:
        spec = new[path].spec
        RunDir(path).create(spec, plans[path], lambda: take(spec.method.name, Path(spec.runs)))

    paths = [*new]
    for path in paths[:1]:  # with the folder of runs, and the code
        make(path)
    for _ in shown(at_once(make, paths[1:]), "making runs", len(paths), show):
        pass
    return runs


def _is_there(run: RunDir) -> bool:
    return os.path.exists(f"{run.path}/spec.json")


def record(
    overrides: list[str],
    points: "list[Point]",
    runs: list[RunDir],
    rows: Sequence[Mapping[str, Any]] = (),
    show: Show | None = None,
) -> str:
    """Write down what the sweep consists of, and return its name. `rows`: of a paper's table, what asked.described
    says of each point."""
    spec = points[0].spec
    given = rows[0]["given"] if rows else ()  # of which some change the numbers of a run, and not the run
    digest = hashlib.sha256("\n".join([*(run.id for run in runs), *given]).encode()).hexdigest()[:8]
    table = f"{rows[0]['sweep'].replace('/', '-')}-" if rows else f"{spec.method.name}-"
    name = f"{table}{spec.recipe}-sweep-{digest}"
    folder = Path(spec.runs) / FOLDER
    folder.mkdir(exist_ok=True)
    rows = rows or [{"sweep": name, "values": dict(w.partition("=")[::2] for w in point.varied)} for point in points]
    listed = [
        {"run": run.id, "varied": list(point.varied), **row} for run, point, row in zip(runs, points, rows, strict=True)
    ]

    def tell(told: tuple[RunDir, Mapping[str, Any]]) -> None:
        run, row = told
        history = run.history()
        said = history.all("sweep")  # by an earlier submission: once is enough
        if not any(all(event.get(key) == value for key, value in row.items()) for event in said):
            Ledger(run.path, history.generation + 1, "submit").write("sweep", **row)

    since = _written(folder / f"{name}.json", listed)
    untold = [(run, row) for run, row in zip(runs, rows, strict=True) if _made(run) >= since]
    for _ in shown(at_once(tell, untold), "noting the sweep", len(untold), show):
        pass
    words = [masked(word) for word in overrides]
    write_json(folder / f"{name}.json", {"overrides": words, "time": round(time.time(), 3), "points": listed})
    return name


def _written(file: Path, points: Sequence[Mapping[str, Any]]) -> float:
    """When the record of just these points was written: each run that there was then has been told. 0: it is not."""
    with contextlib.suppress(OSError, ValueError):
        if RECORD.read(file)["points"] == json.loads(json.dumps(points)):
            return file.stat().st_mtime
    return 0.0


def _made(run: RunDir) -> float:
    return os.stat(f"{run.path}/spec.json").st_mtime


def masked(word: str) -> str:
    """An override as everybody may read it who reads the folder."""
    key, sign, _ = word.partition("=")
    return f"{key}={MASK}" if sign and key.lstrip("+~").startswith("cluster.environment") else word


def recorded(folder: Path) -> list[dict[str, Any]]:
    """What every record of the folder says of its runs: asked.described, `run` and `time` of each, where it is a row of
    a paper's table. One that cannot be read says nothing."""
    rows = []
    for file in (folder / FOLDER).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = RECORD.read(file)
            points = [row for row in record["points"] if IN_A_TABLE(row)]
            rows += [{**row, "run": _inside(row["run"]), "time": record.get("time", 0.0)} for row in points]
    return rows


def _inside(run: str) -> str:
    """The id of a run in the folder of the record. Raises NotOurs for a path to somewhere else."""
    if os.path.basename(run) != run or run in ("", ".", ".."):
        raise NotOurs(f"{FOLDER}: a record names {run!r}, which is no run of this folder; put back what was there")
    return run


def rows_of(folder: Path, name: str, scale: str) -> list[dict[str, Any]]:
    """What was submitted of the table `name` at `scale`, oldest first: asked.described, `run` and `time` of each run.

    Where the folder has no record of it, the runs' own ledgers are asked: somebody moved the runs without it.
    """
    rows = [row for row in recorded(folder) if (row["sweep"], row["scale"]) == (name, scale)]
    for run in every(folder) if not rows else ():
        with contextlib.suppress(OSError, ValueError):
            said = filter(IN_A_TABLE, run.history().all("sweep"))
            rows += [{**e, "run": run.id} for e in said if (e["sweep"], e["scale"]) == (name, scale)]
    return sorted(rows, key=lambda row: row["time"])
