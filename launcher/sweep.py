"""A multirun: every point a run of its own, frozen now, submitted as one array; the same command runs what is missing.

<runs>/.sweeps/<id>.json    the command, and the run of every point
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import plan as planning
from launcher import snapshot
from launcher.rundir import RunDir, read_json, write_json

if TYPE_CHECKING:
    from launcher.points import Point


def members(name: str, folder: Path) -> list[RunDir] | None:
    """The runs of the sweep called `name` (or uniquely beginning so); None when there is no such sweep."""
    found = sorted((folder / ".sweeps").glob("*.json"))
    found = [f for f in found if f.stem == name] or [f for f in found if f.stem.startswith(name) and "sweep" in name]
    if len(found) != 1:
        return None
    return [RunDir(folder / point["run"]) for point in read_json(found[0])["points"]]


def create(points: "list[Point]") -> list[RunDir]:
    """The run of every point, on disk. Nothing is written before every point is known to be good."""
    plans: list[dict[str, Any]] = []
    checked = set()
    for point in points:
        plans.append(planning.make(point.spec, point.recipe).to_json())
        kind = (repr(point.spec.cluster), point.spec.nodes, point.spec.tasks_per_node)
        if point.spec.cluster.kind == "slurm" and kind not in checked:
            from launcher import submit

            submit.check(point.spec, plans[-1])
            checked.add(kind)
    take = cache(snapshot.take)
    runs = []
    for point, plan in zip(points, plans, strict=True):
        spec = point.spec
        found = RunDir(Path(spec.runs) / spec.run_id)
        if not (found.path / "spec.json").exists():
            found.create(spec, plan, lambda spec=spec: take(spec.method.name, Path(spec.runs)))
        runs.append(found)
    return runs


def record(overrides: list[str], points: "list[Point]", runs: list[RunDir]) -> str:
    spec = points[0].spec
    digest = hashlib.sha256("\n".join(run.id for run in runs).encode()).hexdigest()[:8]
    name = f"{spec.method.name}-{spec.recipe}-sweep-{digest}"
    folder = Path(spec.runs) / ".sweeps"
    folder.mkdir(exist_ok=True)
    rows = [{"run": run.id, "varied": list(point.varied)} for run, point in zip(runs, points, strict=True)]
    write_json(folder / f"{name}.json", {"overrides": overrides, "points": rows})
    return name
