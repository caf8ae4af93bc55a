"""What a person sees of one run: the plan, progress, the closing screen. listing.py shows many."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from launcher import durations
from launcher.plan.layouts import OnNodes
from launcher.plan.plan import Plan
from launcher.report import nodes, scores
from launcher.report.bar import PLAIN_SECONDS
from launcher.report.screen import console as on_screen

if TYPE_CHECKING:
    from launcher.run.folder import RunDir

# Of progress.json, in this order.
FIGURES = {
    "steps": "{}", "loss": "loss {:.3f}", "inertia": "inertia {:.6g}", "reassigned": "{:.2%} reassigned",
    "empty": "{} empty clusters", "skipped": "{:.0%} skipped", "images_per_s": "{:,.0f} images/s",
    "seconds_left": "{} left", "broken": "{} broken images",
}  # fmt: skip
SILENT_AT_0 = ("steps", "empty", "skipped", "images_per_s", "broken")


def console() -> Console:
    """Where people read: stderr, so that stdout stays the scripts'."""
    return on_screen(stderr=True)


def plan(plan: Plan, screen: Console) -> None:
    """A number a line, each with where it comes from."""
    table = Table(box=SIMPLE_HEAD, title=f"{plan.method} ({plan.recipe}) as run {plan.run}", title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("plan", justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    rows: list[tuple[str, Any, str]] = [
        ("ranks", plan.world_size, "world_size"),
        ("global batch", plan.global_batch, "global_batch"),
        ("images per GPU", _per_gpu(plan), "per_gpu_batch"),
        ("accumulation", plan.accumulation, "accumulation"),
        ("groups", f"{plan.groups.count} of {plan.groups.size}", "groups"),
        ("", "", "group_size"),
        ("clusters", "", "clusters"),
        ("learning rate", f"{plan.lr:g}", "lr"),
        ("steps", f"{plan.steps:,}", "steps"),
        ("memory", f"{plan.memory_gb:.2f} GB", "memory_gb"),
        ("disk", f"{plan.disk_gb:.2f} GB", "disk_gb"),
        ("", "", "disk"),
        ("checkpoint every", f"{plan.checkpoint_every:,} steps", "checkpoint_every"),
        ("time", durations.exact(plan.hours * 3600) + (", assumed" if plan.hours_assumed else ""), "hours"),
        ("GPU-hours", f"{plan.gpu_hours:,.0f}" if plan.gpus_per_node else "", "gpu_hours"),
        ("spare nodes", plan.spare_nodes or "", "spare_nodes"),
        ("expect", "", "expect"),
    ]
    if plan.sbatch:
        rows[-1:-1] = [
            ("CPUs a rank", plan.cpus_per_task, "cpus_per_task"),
            ("host memory", f"{plan.host_memory_gb:,.0f} GB", "host_memory_gb"),
            ("time limit", durations.exact(plan.timeout_min * 60), "timeout_min"),
            ("warned", f"{plan.signal_delay_s} s", "signal_delay_s"),
        ]
    for label, value, key in rows:
        if value != "" or key in plan.why:
            table.add_row(label, str(value), plan.why.get(key, ""))
    screen.print(table)
    if len(plan.layouts) > 1:
        screen.print(_layouts(plan))
    if plan.waste:
        screen.print(Text.assemble(("wasteful:", "yellow"), f" {plan.waste}"), soft_wrap=True)
    if plan.variant:
        screen.print(f"  to have it, add: {' '.join(plan.variant)}", soft_wrap=True)
    for warning in plan.warnings:
        screen.print(Text.assemble(("warning:", "yellow"), f" {warning}"), soft_wrap=True)
    if plan.sbatch:
        screen.print("\nThe batch script, as it will be submitted:", soft_wrap=True)
        screen.print(Text(plan.sbatch), style="dim", soft_wrap=True)


def _layouts(plan: Plan) -> Table:
    """A row for each count of nodes that the run takes."""
    table = Table(box=SIMPLE_HEAD, title="As many nodes as there are, of these", title_justify="left")
    for name in ("nodes", "ranks", "images per GPU", "memory", "checkpoint every", "time", "GPU-hours"):
        table.add_column(name, justify="right")
    for each in plan.layouts:
        table.add_row(
            str(each.nodes),
            str(each.world_size),
            _per_gpu(each),
            f"{each.memory_gb:.2f} GB",
            f"{each.checkpoint_every:,} steps",
            durations.exact(each.hours * 3600),
            f"{each.gpu_hours:,.0f}" if plan.gpus_per_node else "",
        )
    return table


def _per_gpu(plan: Plan | OnNodes) -> str:
    return str(plan.per_gpu_batch) if plan.accumulation == 1 else f"{plan.per_gpu_batch} x {plan.accumulation}"


class _Pace:
    """How long a stage will still take, by what was done of it since it was first seen."""

    def __init__(self) -> None:
        self._stage, self._first, self._begun = "", 0, 0.0

    def left(self, stage: str, done: int, total: int) -> float | None:
        """Seconds; None as long as nothing was done."""
        now = time.monotonic()
        if stage != self._stage or done < self._first:
            self._stage, self._first, self._begun = stage, done, now
        gone = done - self._first
        return (now - self._begun) / gone * max(0, total - done) if gone else None


class Watch:
    """Shows progress.json while a local run works: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, run: "RunDir", screen: Console):
        self._run, self._screen = run, screen
        self._before = run.progress()  # of an earlier start: not news
        self._said, self._shown, self._noticed, self._pace = 0.0, "", 0, _Pace()
        self._bar: Progress | None = None
        if screen.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[figures]}", markup=False),
                console=screen,
                transient=True,
            )
            self._task = self._bar.add_task("starting", total=None, figures="")

    def __enter__(self) -> "Watch":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self) -> None:
        now = self._run.progress()
        if now == self._before:
            return
        for notice in now.get("notices", ())[self._noticed :]:
            self._noticed += 1
            self._screen.print(notice, soft_wrap=True)
        stage, done, total = now["stage"], now.get("done", 0), now.get("total", 1)
        step, steps = now.get("step", 0), now.get("steps")
        inside = (
            f" {done}/{total}" if "done" in now and stage not in ("training", "starting", "done", "stopped") else ""
        )
        if inside:
            now = {**now, "seconds_left": self._pace.left(stage, done, total)}
        if self._bar:
            # An evaluation has no steps.
            completed, whole = (step, steps) if steps else (done, total) if inside else (0, None)
            description, figures = f"{stage}{inside}", _figures(now)
            self._bar.update(self._task, description=description, completed=completed, total=whole, figures=figures)
        elif stage not in ("done", "stopped") and time.monotonic() - self._said > PLAIN_SECONDS:
            line = ", ".join(filter(None, (f"{stage}{inside}", _figures(now))))
            if line != self._shown:
                self._said, self._shown = time.monotonic(), line
                self._screen.print(line, soft_wrap=True)

    def stopping(self, *, again: bool) -> None:
        told = "killing the ranks" if again else "stopping at the next safe point, to save first; once more kills"
        self._screen.print(told, soft_wrap=True)


def _figures(now: dict[str, Any]) -> str:
    step = now.get("step", 0)
    now = {key: now[key] for key in FIGURES if now.get(key) or (now.get(key) == 0 and key not in SILENT_AT_0)}
    if "steps" in now:
        now["steps"] = f"{step}/{now['steps']}"
    if "seconds_left" in now:
        now["seconds_left"] = durations.exact(now["seconds_left"])
    return ", ".join(FIGURES[key].format(value) for key, value in now.items())


def closing(run: "RunDir", screen: Console, where: str) -> None:
    """The last screen of a finished run: scores beside what they must beat, and where everything lies.

    `where`: what a command needs behind the run's id to find it from here.
    """
    summary = run.summary()
    of = run.history().first("eval") if run.owner else None
    steps = "" if summary["method"] == "weights" else f", {summary['step']} steps"
    done = f", step {of['step']} of {run.owner.id}" if of else steps
    screen.print(f"{run.id}: done{done}", style="bold", soft_wrap=True)
    clustering = summary["evals"].get("kmeans")
    table = Table(box=SIMPLE_HEAD)
    table.add_column("clustering" if clustering else "evaluation", overflow="fold")
    table.add_column("" if clustering else "score", justify="right", no_wrap=True)
    for key, value in (clustering or {}).items():
        table.add_row(key.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else str(value))
    for label, score in scores.labelled(summary["evals"]):
        table.add_row(label, score)
    clusters = summary["evals"].get("clusters", {})
    for key, label in (
        ("nmi_labels", "NMI of clusters and labels"),
        ("nmi_previous", "NMI of the last two clusterings"),
    ):
        if key in clusters:
            table.add_row(label, f"{clusters[key]:.3f}")
    screen.print(table)
    finished = run.history().all("finished")
    if finished:
        seconds = finished[-1]["seconds"]
        shares = ", ".join(f"{name} {value:.0f} s" for name, value in sorted(seconds.items(), key=lambda s: -s[1]))
        screen.print(f"time       {shares}", soft_wrap=True)
    files = list(dict.fromkeys(f for e in run.history().all("broken_images") for f in e["files"]))
    if files:
        screen.print(f"broken     {len(files)} images could not be decoded: {', '.join(files[:3])}", soft_wrap=True)
    for folder in sorted({file.parent for file in run.path.glob("*/*.png")}):
        screen.print(f"pictures   {folder}", soft_wrap=True)
    if run.owner or summary["method"] == "weights":
        return
    if clustering:
        screen.print(f"result     {run.spec().method.out or run.path / 'clusters'}", soft_wrap=True)
        screen.print(f"curves     tensorboard --logdir {run.path / 'tensorboard'}", soft_wrap=True)
        return
    if (run.path / "clusters.png").exists():
        screen.print(f"picture    {run.path / 'clusters.png'}", soft_wrap=True)
    screen.print(f"curves     tensorboard --logdir {run.path / 'tensorboard'}", soft_wrap=True)
    screen.print(f"weights    sslrun export {run.id}{where}", soft_wrap=True)


def show(summary: dict[str, Any], screen: Console) -> None:
    """One run, a field a line; what is empty is left out."""
    for key, value in summary.items():
        if value in (None, "", {}, [], ()):
            continue
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        lines = value if isinstance(value, list) else [value]
        for label, line in zip([key, *[""] * len(lines)], lines, strict=False):
            said = ", ".join(f"{k} {v}" for k, v in line.items() if v is not None) if isinstance(line, dict) else line
            screen.print(f"{label:13} {said}", soft_wrap=True)


def in_words(summary: dict[str, Any]) -> dict[str, Any]:
    """Of a run: with what is said more plainly to a person than to a script, and without what is said besides."""
    interruptions = [{**each, "in_place": None} for each in summary["interruptions"]]  # `where` says it
    where = {**summary["where"], "nodes": summary["asked_nodes"]}
    where.pop("least_nodes", None)
    return {
        **summary,
        "evals": [f"{said}: {_numbers(found)}" for said, found in summary["evals"].items()],
        "where": where,
        "granted_nodes": nodes.fewer(summary) or None,
        "asked_nodes": None,
        "in_place": summary["in_place"] or None,
        "interruptions": interruptions,
        "spares": nodes.spares(summary["spares"]) if summary["spares"] else None,
    }


def _numbers(found: Mapping[str, Any]) -> str:
    """Without those of single classes, rates or ranges, which are many: `--json` has them, with all their digits."""
    few = {name: value for name, value in found.items() if not isinstance(value, Mapping | list)}
    plain = {name: float(f"{value:.6g}") if isinstance(value, float) else value for name, value in few.items()}
    return ", ".join(f"{name} {value}" for name, value in plain.items())
