"""A report as one HTML file that opens from disk: no script, nothing fetched, light or dark as the screen is."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from launcher.durations import short
from launcher.errors import InputError
from launcher.report import outlook as outlooks
from launcher.report import svg, words
from launcher.report.life import Life
from launcher.report.outlook import Outlook
from launcher.report.table import Run, Table, TableRow
from launcher.report.terminal import SAME_UNIT, remarks
from launcher.run.files import cache_folder, replacing

FOLDER = "reports"  # in the folder of runs
WIDE, NARROW = 720, 350  # pixels: a page and a telephone


def default_path(folder: Path, name: str) -> Path:
    """Of the page of a run or sweep: in its folder of runs, or with the reader where that is somebody else's."""
    home = folder if all(map(_mine, (folder, folder / FOLDER))) else cache_folder()
    return home / FOLDER / f"{name.replace('/', '-')}.html"


def _mine(folder: Path) -> bool:
    """Not somebody else's, nor a link of somebody else's: the page would lie wherever they like."""
    return not os.path.lexists(folder) or folder.lstat().st_uid == folder.stat().st_uid == os.geteuid()


def sweep(table: Table, file: Path, command: str) -> None:
    """Write the page of a sweep. Raises InputError where one cannot write."""
    unit, cells = words.cells(table)
    rows = [
        {**texts, "row": row, "runs": [(run, _link(run, file)) for run in row.runs if run.path]}
        for row, texts in zip(table.rows, cells, strict=True)
    ]
    _write(
        file, "sweep.html", table=table, rows=rows, unit=unit, panels=_panels(table), command=command,
        remarks=remarks(table), series=any(row.series for row in table.rows),
    )  # fmt: skip


def run(life: Life, file: Path, command: str) -> None:
    """Write the page of one run. Raises InputError where one cannot write."""
    half = (WIDE - 32) // 2
    curves = [
        Panel(c.name, [], svg.curve(c.steps, c.values, half), svg.curve(c.steps, c.values, NARROW)) for c in life.curves
    ]
    _write(
        file, "run.html", life=life, command=command, curves=curves,
        timelines=[svg.timeline(life.spans, width) for width in (WIDE, NARROW)],
        folder=quote(os.path.relpath(life.path, file.parent)), short=short,
    )  # fmt: skip


def simulation(outlook: Outlook, file: Path, command: str) -> None:
    """Write the page of a simulated run. Raises InputError where one cannot write."""
    rows = [
        svg.Ends(f"{each.journey.nodes} x {each.journey.every:,}", [each.seconds(n / 100) for n in svg.LEVELS])
        for each in outlook.forecasts
    ]
    title = "When it ends, by nodes x steps between saves: half of the lives by the mark, 80 % of them on the bar"
    picture = Panel(title, [], svg.ends(rows, WIDE), svg.ends(rows, NARROW))
    _write(file, "simulation.html", outlook=outlook, picture_of=picture, command=command, **outlooks.shown(outlook))


@dataclass(frozen=True)
class Panel:
    """A picture with its title and, where it has several lines, what they are: (name, classes)."""

    title: str
    legend: Sequence[tuple[str, str]]
    wide: str
    narrow: str


def _panels(table: Table) -> list[Panel]:
    """Both curves: in one picture where they measure the same, else one above the other."""
    same = table.scale == SAME_UNIT
    theirs = [svg.Mark(words.axis_value(row.value), row.paper) for row in table.rows]
    ours = [
        svg.Mark(words.axis_value(row.value if same else row.at), row.mean, row.scores, row.std, row.state)
        for row in table.rows
    ]
    printed = any(row.paper is not None for row in table.rows)
    if same and printed:
        lines = [*_lines(table.rows, theirs, "theirs", "paper"), *_lines(table.rows, ours, "ours", "ours")]
        return [_panel(table.ablation.numbers, lines)]
    own = _panel(f"Ours: {table.metric}, recipe={table.scale}", _lines(table.rows, ours, "ours"))
    return [_panel(f"Paper: {table.ablation.numbers}", _lines(table.rows, theirs, "theirs")), own] if printed else [own]


def _panel(title: str, lines: Sequence[svg.Line]) -> Panel:
    legend = [(line.name, line.classes) for line in lines] if len(lines) > 1 else []
    height = 210 if legend else 150
    return Panel(title, legend, svg.panel(lines, WIDE, height), svg.panel(lines, NARROW, height))


def _lines(rows: Sequence[TableRow], marks: Sequence[svg.Mark], style: str, whose: str = "") -> list[svg.Line]:
    """One line a series."""
    names = list(dict.fromkeys(row.series for row in rows))
    return [
        svg.Line(
            ", ".join(filter(None, (whose, name))),
            style,
            [mark for row, mark in zip(rows, marks, strict=True) if row.series == name],
            dash,
        )
        for dash, name in enumerate(names)
    ]


def _link(run: Run, file: Path) -> str:
    """To the run's own page where there is one, else to its folder; relative, so that all may be moved together."""
    page = file.parent / f"{run.id.replace('/', '-')}.html"
    return quote(page.name if page.exists() else os.path.relpath(run.path, file.parent))


def _write(file: Path, template: str, **values: Any) -> None:
    environment = Environment(
        loader=PackageLoader("launcher.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    text = environment.get_template(template).render(made=f"{datetime.now():%Y-%m-%d %H:%M}", words=words, **values)
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(file, durable=False) as page:
            page.write(text.encode(errors="replace"))
    except OSError as error:
        fix = "choose another file with --out"
        raise InputError.of("--out", file, f"cannot write there ({error.strerror})", fix) from None
