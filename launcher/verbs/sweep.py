"""`sslrun sweep list`: the papers' tables, what each claims and takes, and what has been run here."""

import json
from argparse import ArgumentParser, Namespace
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import InputError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.sweep.ablation import Ablation

EXAMPLE = "sslrun sweep list, sslrun sweep list dino"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", choices=["list"], metavar="list")
    parser.add_argument("words", nargs="*", metavar="PAPER|runs=FOLDER", help="those of one paper only")
    arguments.add_config_dir(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """The papers' tables that `--multirun sweep=NAME` runs: claim, points, cost, and what has been run here."""
    from launcher.sweep import ablation

    papers = [word for word in options.words if "=" not in word]
    folder = arguments.runs_folder([word for word in options.words if word not in papers])
    tables = [ablation.read(name, file) for name, file in ablation.names(options.config_dir).items()]
    known = sorted({table.name.partition("/")[0] for table in tables})
    for paper in papers:
        if paper not in known:
            raise InputError.of("PAPER", paper, "no sweep is of it", f"known: {', '.join(known)}")
    own = ablation.own_methods(options.config_dir)
    here = _here(folder)
    rows = [_row(t, here, own) for t in tables if not papers or t.name.partition("/")[0] in papers]
    if options.json:
        print(json.dumps(rows))
    else:
        _show(rows, folder)
    return 0


def _row(table: "Ablation", here: Mapping[tuple[str, str], Mapping[str, int]], own: list[str]) -> dict[str, Any]:
    scales = {}
    for name, scale in table.scales.items():
        ready = sum(not table.lacks(point, name, own) for point in table.points)
        cost = {"gpu_hours": scale.gpu_hours} if scale.gpu_hours else {"minutes": scale.minutes}
        scales[name] = {"metric": scale.metric, **cost, "ready": ready, "here": here.get((table.name, name), {})}
    return {
        "name": table.name, "source": table.source, "claim": table.claim, "axis": table.axis,
        "points": len(table.points), "scales": scales,
    }  # fmt: skip


def _here(folder: Path) -> Mapping[tuple[str, str], Mapping[str, int]]:
    """{(table, scale): its runs in the folder, by state}."""
    from launcher.report.bar import STOPPED, Bar
    from launcher.report.index import RunIndex
    from launcher.sweep import record

    member = {(row["sweep"], row["scale"], row["run"]) for row in record.recorded(folder)}
    with Bar(STOPPED) as bar:
        rows, _ = RunIndex(folder, only={run for _, _, run in member}).by_name(bar)
    found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for name, scale, run in sorted(member):
        if run in rows:
            found[name, scale]["damaged" if rows[run].damaged else rows[run].facts["state"]] += 1
    return found


def _show(rows: list[dict[str, Any]], folder: Path) -> None:
    from rich.text import Text

    from launcher.report import view
    from launcher.report.terminal import screen

    console = screen()
    for row in rows:
        console.print(Text.assemble((row["name"], "bold"), f"  {row['source']}"), soft_wrap=True)
        console.print(Text(f"  {row['claim']}", style="italic"), soft_wrap=True)
        console.print(f"  {row['axis']}, {row['points']} points", soft_wrap=True)
        for name, scale in row["scales"].items():
            console.print(Text.assemble(f"  {name:6} {_cost(scale):22}", *_progress(scale, row["points"])))
        console.print()
    counted = f"{len(rows)} {'sweep' if len(rows) == 1 else 'sweeps'}; run here: in {folder}"
    view.console().print(counted, style="dim", soft_wrap=True)


def _cost(scale: Mapping[str, Any]) -> str:
    return f"{scale['gpu_hours']:,.0f} GPU-hours" if "gpu_hours" in scale else f"{scale['minutes']:,.0f} minutes"


def _progress(scale: Mapping[str, Any], points: int) -> list[Any]:
    from launcher.report.listing import COLOURS

    said: list[Any] = []
    if scale["ready"] < points:
        absent = points - scale["ready"]
        said.append((f"{absent} {'point' if absent == 1 else 'points'} not here yet  ", "yellow"))
    for number, (state, count) in enumerate(scale["here"].items()):
        said += [", " if number else "", (f"{count} {state}", COLOURS.get(state, ""))]
    return said if scale["here"] else [*said, ("not run", "dim")]
