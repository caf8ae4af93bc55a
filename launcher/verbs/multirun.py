"""`sslrun --multirun`: every point a run of its own, all of them at once or one after the other."""

import json
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import ClusterError, InputError, RunFailed
from launcher.plan import kinds
from launcher.report import behind, view
from launcher.report.bar import STOPPED, Bar
from launcher.report.index import RunIndex, RunRow
from launcher.run.folder import RunDir
from launcher.run.state import ACTIVE
from launcher.slurm import queue
from launcher.start import at_hand
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
        with Bar(STOPPED) as bar:
            points = expand(options.overrides, options.config_dir, show=bar)
    runs_folder = Path(points[0].spec.runs)
    if points[0].spec.cluster.kind == "local":
        _say_too_much(points, screen, anyway=options.anyway)
    with Bar(STOPPED) as bar:
        runs = record.create(points, bar)
        name = record.record(options.overrides, points, runs, rows, bar)
        once = {run.path.name: (run, point) for run, point in zip(runs, points, strict=True)}
        index = RunIndex(runs_folder, work=True, only=once)
        before, silent = index.by_name(bar)
    left = [
        each for name, each in once.items()
        if not _settled(before.get(name), each[1], columns.get(name), queued=not silent)
    ]  # fmt: skip
    runs, points = [run for run, _ in left], [point for _, point in left]
    if not left:
        screen.print("nothing is missing", soft_wrap=True)
    elif len(left) < len(once):
        screen.print(f"{len(once) - len(left):,} of {len(once):,} runs are done, or in the queue", soft_wrap=True)
    worst = 0
    if left and points[0].spec.cluster.kind == "slurm":
        worst = _submit(runs, points, columns, name, screen, options, of=len(once))
    elif left:
        worst = _one_after_the_other(runs, points, columns, options)
    if options.wait:
        worst = max(worst, _wait(index, screen))
    now = index.by_name()[0] if left or options.wait else before
    states = [now[run] for run in once if run in now]
    if options.json:
        rows = [{name: row.facts[name] for name in ("id", "path", "state", "job")} for row in states]
        print(json.dumps({"sweep": name, "runs": rows}))
    counted = ", ".join(f"{n} {state}" for state, n in Counter(row.facts["state"] for row in states).items())
    screen.print(f"sweep {name}: {len(once)} runs in {runs_folder}, {counted}", soft_wrap=True)
    if table:
        runs_option = arguments.runs_option_of(runs_folder)
        command = f"sslrun report sweep={table.ablation.name} recipe={table.scale}{runs_option}"
        screen.print(f"beside the paper's: {command}", soft_wrap=True)
    return worst


def _settled(row: RunRow | None, point: "Point", asked: Sequence[Sequence[str]] | None, *, queued: bool) -> bool:
    """Whether nothing is left to do about a run: it is done or in the queue, nobody waits for its end, and nobody wants
    it to be judged afterwards. queued: the queue has said so; the ledger's last word is no answer, its job may be gone.
    """
    if row is None or row.damaged or asked or point.spec.eval_after or row.work["eval_after"]:
        return False
    facts = row.facts
    stands = facts["state"] == "done" or (queued and facts["state"] in ACTIVE and facts["job"])
    return bool(stands) and not (row.work["awaited"] or facts["behind"])


def _say_too_much(points: "list[Point]", screen: "view.Console", *, anyway: bool) -> None:
    """Raises InputError where one that is not made yet needs more memory than this machine has."""
    new = [point.spec for point in points if not Path(point.spec.runs, point.spec.run_id, "spec.json").exists()]
    for said in at_hand.check(((spec, kinds.make(spec)) for spec in new), anyway=anyway):
        screen.print(said, soft_wrap=True)


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
    *,
    of: int,
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
        said = f"{len(left)} of {of} runs are not submitted: {left[0]}"
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


def _wait(index: RunIndex, screen: "view.Console") -> int:
    """A live table until every run has ended. Exit code 4 when one failed."""
    from rich.live import Live

    with Live(console=screen, refresh_per_second=2) as live:
        while True:
            rows, _ = index.rows()
            live.update(_table(rows))
            states = [row.facts["state"] for row in rows]
            if not any(state in ACTIVE for state in states):
                break
            time.sleep(WAIT_SECONDS)
    return RunFailed.exit_code if "failed" in states else 0


def _table(rows: Sequence[RunRow]) -> Any:
    from rich.table import Table

    table = Table(box=view.SIMPLE_HEAD)
    for name in ("run", "state", "step", "loss"):
        table.add_column(name)
    for facts in (row.facts for row in rows):
        steps = f"{facts['step']}/{facts['steps']}" if facts["steps"] else ""
        loss = "" if facts["loss"] is None else f"{facts['loss']:.3f}"
        table.add_row(facts["id"], facts["state"], steps, loss)
    return table
