"""A paper's table with our numbers on a terminal, and as Markdown."""

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table as Grid
from rich.text import Text

from launcher import durations
from launcher.report import words
from launcher.report.life import Life, PastStart
from launcher.report.listing import COLOURS
from launcher.report.screen import console
from launcher.report.table import Table

SAME_UNIT = "paper"  # the scale at which ours and the paper's are the same measure
UNBOUNDED = 400  # letters a line, where nobody says how wide it may be
COUNTED = ("waited", "worked", "steps", "lost")  # columns of the table of starts
NUMBERS = ("paper", "ours", "difference", "steps", "hours")  # columns
OPTIONAL = ("difference", "steps", "hours")  # not on a screen where no point has any


def screen() -> Console:
    """stdout; what goes into a file or a pipe is not broken into lines of eighty letters."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else UNBOUNDED
    return console(width=width)


def show(table: Table, screen: Console) -> None:
    """The table, what its trend says, and why points have no number."""
    screen.print(Group(*_parts(table)), soft_wrap=False)


def _parts(table: Table) -> Iterator[Text | Grid]:
    yield Text.assemble((f"{table.ablation.name}, recipe={table.scale}", "bold"), f"   {table.ablation.source}")
    yield Text(table.ablation.claim, style="italic")
    if table.given:
        yield Text(f"with {' '.join(table.given)}", style="dim")
    grid = Grid(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    titles, rows = _columns(table, "point", "series", "state", *NUMBERS)
    for name in OPTIONAL:
        if all(row[name] == words.MISSING for row in rows):
            del titles[name]
    for name, title in titles.items():
        longest = max(len(word) for row in rows for word in (*row[name].split(), *title.split()))
        side = "right" if name in NUMBERS else "left"
        grid.add_column(title, justify=side, min_width=longest, overflow="fold")
    for point, row in zip(table.rows, rows, strict=True):
        row["state"] = Text(row["state"], style=COLOURS.get(point.state, "dim"))
        grid.add_row(*(row[name] for name in titles))
    yield grid
    yield Text(table.trend.sentence)
    for line in remarks(table):
        yield Text(line, style="dim")


def show_run(life: Life, screen: Console) -> None:
    """One run: where it stands, every start of it, and its scores."""
    summary = life.summary
    screen.print(f"{life.id}: {summary['state']}, step {summary['step']:,} of {summary['steps']:,}", style="bold")
    if summary["message"]:
        screen.print(summary["message"], soft_wrap=True)
    if life.starts:
        screen.print("", _starts(life.starts), "", sep="\n")
    for line in _places(life.starts):
        screen.print(line, soft_wrap=True)
    scores = Grid(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("evaluation", "step", "score", ""):
        scores.add_column(name, justify="right" if name in ("step", "") else "left")
    for protocol, step, numbers in life.scores:
        for number, (name, value) in enumerate(numbers.items()):
            head = ("", "") if number else (protocol, f"{step:,}")
            scores.add_row(*head, name.replace("_", " "), words.score(value))
    if scores.row_count:
        screen.print(scores)
    for line in life.remarks:
        screen.print(line, soft_wrap=True)


def _starts(starts: Sequence[PastStart]) -> Grid:
    """Fits a screen of 80 letters: what a start began through stands below its cause, and `_places` says the rest."""
    grid, counted = Grid(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)), ("start", *COUNTED)
    for name in ("start", "because", "began", *COUNTED, "ended"):
        grid.add_column(name, justify="right" if name in counted else "left", overflow="fold")
    for s in starts:
        cause, clock = f"{s.cause}\n{s.through}" if s.through else s.cause, s.began.split()[1].rpartition(":")[0]
        took = durations.short(s.waited), durations.short(s.worked)
        grid.add_row(str(s.number), cause, clock, *took, f"{s.first:,}–{s.last:,}", str(s.lost), s.ended)
    return grid


def _places(starts: Sequence[PastStart]) -> Iterator[str]:
    """On which day and where they were, a line for those in a row of which that is the same."""
    for (day, where, ranks), group in itertools.groupby(starts, lambda s: (s.began.split()[0], s.where, s.ranks)):
        numbers = [s.number for s in group]
        which = f"Start {numbers[0]}" if len(numbers) == 1 else f"Starts {numbers[0]}–{numbers[-1]}"
        had = f"{ranks:,} rank{'' if ranks == 1 else 's'}" if ranks else ""
        yield f"{which}: {', '.join(filter(None, (day, where, had)))}."


def remarks(table: Table) -> list[str]:
    """What a reader must know of the numbers, and why some are not there."""
    said = [f"The paper's: {table.ablation.numbers}. Ours: {table.metric} of recipe={table.scale}."]
    if table.scale != SAME_UNIT:
        said[0] += " These are different measures: what can be compared is the order of the points, not their numbers."
    said += table.notes
    if table.others:
        given = "; ".join(" ".join(kind) or "without other overrides" for kind in table.others)
        said.append(f"Also submitted, and not shown: {given}.")
    messages = {f"{run.id} {words.state_name(run.state)}: {run.message}" for run in table.runs if run.message}
    return said + sorted(messages)


def markdown(table: Table, command: str) -> str:
    """A section of a document. `command`: what made it."""
    titles, rows = _columns(table, "point", "series", "paper", "ours", "difference", "state", "steps", "hours")
    lines = [f"## {table.ablation.axis} ({table.ablation.source})", ""]
    lines += [f"<!-- made by: {command} -->", "", f"Claim: {table.ablation.claim}", ""]
    if table.given:
        lines += [f"Run with `{' '.join(table.given)}`.", ""]
    lines += [_line(titles.values()), "|" + "|".join("---:" if name in NUMBERS else "---" for name in titles) + "|"]
    lines += [_line(row[name] for name in titles) for row in rows]
    return "\n".join([*lines, "", table.trend.sentence, "", *(f"{text}\n" for text in remarks(table))])


def _columns(table: Table, *names: str) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """({column: its title} of those that the table has, {column: cell} of each point)."""
    unit, rows = words.cells(table)
    titles = {**dict.fromkeys(names), "point": table.ablation.axis, "hours": unit}
    shown = [name for name in names if name != "series" or any(row.series for row in table.rows)]
    return {name: titles[name] or name for name in shown}, rows


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"
