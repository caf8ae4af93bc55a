"""`sslrun --multirun`: every point a run of its own, all of them at once or one after the other."""

import json
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import ClusterError, InputError, RunFailed
from launcher.report import behind, view
from launcher.report.bar import STOPPED, Bar
from launcher.run.folder import RunDir
from launcher.run.state import ACTIVE
from launcher.slurm import queue
from launcher.sweep import record
from launcher.verbs import arguments, drive

if TYPE_CHECKING:
    from launcher.compose.points import Point
    from launcher.sweep.ablation import PaperRow
    from launcher.sweep.asked import Asked

WAIT_SECONDS = 2.0
Columns = Mapping[str, Sequence[Sequence[str]]]  # of a run's id the evaluations that a table's columns are of


def run(options: Namespace) -> int:
    """Freeze every point, submit those that are neither queued nor done, and return; `--wait` stays and watches."""
    from launcher.compose.points import expand
    from launcher.sweep import asked

    screen, rows, columns = view.console(), [], {}
    table = asked.read(options.overrides, options.config_dir)
    if table:
        members, absent = asked.members(table, options.config_dir)
        points, rows = [member.point for member in members], [asked.described(table, member) for member in members]
        columns = asked.columns(table, members, options.config_dir)
        _say_absent(table, absent, screen)
        if not points:
            raise InputError.of("sweep", table.ablation.name, "none of its points can run yet", "choose another")
    else:
        points = expand(options.overrides, options.config_dir)
    runs_folder = Path(points[0].spec.runs)
    runs = record.create(points)
    name = record.record(options.overrides, points, runs, rows)
    once = {run.path: (run, point) for run, point in zip(runs, points, strict=True)}  # a run may be of several columns
    runs, points = [run for run, _ in once.values()], [point for _, point in once.values()]
    if points[0].spec.cluster.kind == "slurm":
        worst = _submit(runs, points, columns, name, screen, options)
    else:
        worst = _one_after_the_other(runs, points, columns, options)
    if options.wait:
        worst = max(worst, _wait(runs, screen))
    states = _states(runs)
    if options.json:
        rows = [
            {"id": run.id, "path": str(run.path), "state": state.name, "job": state.job}
            for run, state in zip(runs, states, strict=True)
        ]
        print(json.dumps({"sweep": name, "runs": rows}))
    counted = ", ".join(f"{n} {state}" for state, n in Counter(s.name for s in states).items())
    screen.print(f"sweep {name}: {len(runs)} runs in {runs_folder}, {counted}", soft_wrap=True)
    if table:
        runs_option = arguments.runs_option(runs[0])
        command = f"sslrun report sweep={table.ablation.name} recipe={table.scale}{runs_option}"
        screen.print(f"beside the paper's: {command}", soft_wrap=True)
    return worst


def _say_absent(table: "Asked", absent: "Sequence[tuple[PaperRow, list[str]]]", screen: "view.Console") -> None:
    axis = table.ablation.axis
    for said in dict.fromkeys(
        f"{axis} {row.value}: not here yet: it needs {', '.join(lacks)}" for row, lacks in absent
    ):
        screen.print(said, soft_wrap=True)


def _submit(
    runs: list[RunDir],
    points: "list[Point]",
    columns: Columns,
    name: str,
    screen: "view.Console",
    options: Namespace,
) -> int:
    from launcher.start import submit

    good = []
    for found in runs:
        diverged = drive.divergence(found)
        if diverged:
            screen.print(f"{found.id}: left as it is: {diverged}", soft_wrap=True)
        else:
            good.append(found)
    with Bar(STOPPED) as bar:
        outcome = submit.submit(good, name=name, show=bar) if good else {}
    left = [s.full for s in outcome.values() if s.full]
    fresh = [s.job for s in outcome.values() if s.job and not s.joined]
    jobs = sorted({job.partition("_")[0] for job in fresh}, key=int)
    if fresh or not left:
        said = f"submitted {len(fresh)} runs as job {', '.join(jobs)}" if fresh else "nothing is missing"
        screen.print(said, soft_wrap=True)
    if left:
        said = f"{len(left)} of {len(good)} runs are not submitted: {left[0]}"
        screen.print(f"{said}; the same command submits them once some have ended", soft_wrap=True)
    before = behind.standing(good, queue.of_runs(good)[0]).values()
    waits = {behind.in_words(each, good[0].runs, arguments.runs_option(good[0])) for each in before}
    notes = {s.note for s in outcome.values()} | {f"behind {said}" for said in waits - {""}}
    for note in sorted(notes - {""}):
        screen.print(note, soft_wrap=True)
    # A run that another sweep launched may lack the evaluation that this one is about.
    wanted = {run.id: point.spec.eval_after for run, point in zip(runs, points, strict=True)}
    for found in (each for each in good if not outcome[each.id].full):
        drive.afterwards(found, options, job=outcome[found.id].job, also=wanted[found.id])
        drive.judged(found, columns.get(found.id, ()), options, job=outcome[found.id].job)
    if left:
        return ClusterError.exit_code
    return 0 if len(good) == len(runs) else RunFailed.exit_code


def _one_after_the_other(runs: list[RunDir], points: "list[Point]", columns: Columns, options: Namespace) -> int:
    """On this machine: each run to its end; one that fails does not keep the others from running."""
    worst = 0
    quiet = Namespace(**{**vars(options), "json": False})
    for found, point in zip(runs, points, strict=True):
        try:
            code = drive.go_on(found, quiet, joined=False)
            lacking = [name for name in point.spec.eval_after if name not in found.spec().eval_after]
            if lacking and not code:
                code = drive.afterwards(found, quiet, also=lacking)
            if not code:
                code = drive.judged(found, columns.get(found.id, ()), quiet)
        except (InputError, RunFailed) as error:
            view.console().print(f"sslrun: {error}", soft_wrap=True)
            code = error.exit_code
        if code == 130:  # Ctrl-C means the sweep
            return code
        worst = max(worst, code)
    return worst


def _states(runs: list[RunDir]) -> list[Any]:
    jobs, _ = queue.of_runs(runs)
    return [found.state(jobs) for found in runs]


def _wait(runs: list[RunDir], screen: "view.Console") -> int:
    """A live table until every run has ended. Exit code 4 when one failed."""
    from rich.live import Live

    with Live(console=screen, refresh_per_second=2) as live:
        while True:
            states = _states(runs)
            live.update(_table(runs, states))
            if not any(state.name in ACTIVE for state in states):
                break
            time.sleep(WAIT_SECONDS)
    return RunFailed.exit_code if any(state.name == "failed" for state in states) else 0


def _table(runs: list[RunDir], states: list[Any]) -> Any:
    from rich.table import Table

    table = Table(box=view.SIMPLE_HEAD)
    for name in ("run", "state", "step", "loss"):
        table.add_column(name)
    for found, state in zip(runs, states, strict=True):
        now: Mapping[str, Any] = found.doing(state.name, found.history())
        loss = now.get("loss")
        steps = f"{now['step']}/{now['steps']}" if now.get("steps") else ""
        table.add_row(found.id, state.name, steps, "" if loss is None else f"{loss:.3f}")
    return table
