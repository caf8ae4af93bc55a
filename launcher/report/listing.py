"""The table of `sslrun status`: as many columns as the screen is wide, the most wanted first.

Written line by line: a general table of ten thousand rows would take rich ten seconds.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.text import Text

from launcher import durations
from launcher.errors import harmless
from launcher.report import ahead, behind, nodes, query
from launcher.report.index import RunRow
from launcher.run import slow_ranks
from launcher.run.state import ACTIVE
from launcher.run.waiting import WAITS
from launcher.slurm import reasons

COLOURS = {
    "done": "green", "running": "cyan", "preempted": "magenta", "failed": "red", "stopped": "yellow",
    "cancelled": "yellow", "not submitted": "yellow",
}  # fmt: skip
# What is going on comes first, what is over and well last.
STATES = ("running", "preempted", "pending", "not submitted", "failed", "stopped", "cancelled", "done")
GAP = 2
WIDEST = 26  # characters of a cell that holds Slurm's own words, which have no end
FAR_DAYS = 180
NOTES = 3  # runs and nodes that are explained on a screen that is watched, where lines are few
TIMES = ("checkpoint_time", "started")

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """`wanted`: the lower, the narrower the screen on which it is still shown. `short`: that is wanted even where its
    cells have to be cut."""

    title: str
    wanted: int
    cell: Callable[[Facts], str]
    right: bool = False
    short: bool = False


def columns() -> list[Column]:
    """Those of the table that nobody asked for otherwise, from left to right."""
    now = time.time()
    return [
        Column("run", 0, lambda f: f["id"]),
        Column("state", 0, lambda f: f["state"]),
        Column("step", 0, lambda f: f"{f['step']}/{f['steps']}" if f["steps"] else "", right=True),
        Column("waits for", 1, _waiting, short=True),
        Column("left", 2, lambda f: durations.short(f["seconds_left"]) if f["state"] in ACTIVE else "", right=True),
        Column("k-NN", 3, _knn, right=True),
        Column("done in", 3, lambda f: ahead.cell(f["foreseen"]), right=True),
        Column("loss", 4, lambda f: "" if f["loss"] is None else f"{f['loss']:.3f}", right=True),
        Column("images/s", 5, lambda f: f"{f['images_per_s']:,.0f}" if f["images_per_s"] else "", right=True),
        Column("nodes", 8, lambda f: _nodes(f) if f["state"] in ("running", "failed") else ""),
        Column("saved", 6, lambda f: _saved(f, now)),
        Column("restarts", 7, _restarts),
        Column("lost", 11, lambda f: str(f["lost_steps"] or ""), right=True),
        Column("limit", 9, lambda f: f["job_left"], right=True),
        Column("at", 10, lambda f: f["stage"] or "" if f["state"] == "running" else ""),
    ]


def asked_for(names: Sequence[str], rows: Sequence[RunRow]) -> tuple[list[str], list[list[str]]]:
    """(titles, cells of each row) of the columns that somebody asked for."""
    return list(names), [[_plain(name, query.value(row, name)) for name in names] for row in rows]


def that_fit(
    rows: Sequence[RunRow], width: int, every: Sequence[Column] | None = None
) -> tuple[list[str], list[list[str]]]:
    """(titles, cells of each row) of those of the columns `every`, by default `columns()`, that have something to say
    and fit `width` characters."""
    every = columns() if every is None else every
    cells = [[_one_line(column.cell(row.facts)) for row in rows] for column in every]
    widths = [max([len(column.title), *map(len, texts)]) for column, texts in zip(every, cells, strict=True)]
    left, kept = width + GAP, set()
    for number in sorted(range(len(every)), key=lambda number: every[number].wanted):
        if every[number].short and any(cells[number]):
            widths[number] = max(len(every[number].title), min(widths[number], left - GAP))
            cells[number] = [_cut(text, widths[number]) for text in cells[number]]
        needed = widths[number] + GAP
        fits = needed <= left or every[number].short
        if not every[number].wanted or (fits and any(cells[number])):
            left -= needed
            kept.add(number)
    shown = sorted(kept)
    padded = [
        [text.rjust(widths[n]) if every[n].right else text for text in cells[n]] if len(cells[n]) else [] for n in shown
    ]
    titles = [every[n].title.rjust(widths[n]) if every[n].right else every[n].title for n in shown]
    return titles, [list(row) for row in zip(*padded, strict=True)]


def lines(
    rows: Sequence[RunRow], titles: Sequence[str], cells: Sequence[Sequence[str]], *, most: int | None = None
) -> Text:
    """The table; of more than `most` rows the first ones, and how many there are besides."""
    widths = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]

    def line(texts: Sequence[str]) -> str:
        padded = [text.ljust(width) for text, width in zip(texts, widths, strict=True)]
        return (" " * GAP).join(padded).rstrip() + "\n"

    text = Text(no_wrap=True, end="")
    text.append(line(titles), style="bold")
    for row, texts in zip(rows[:most], cells[:most], strict=True):
        written, style = line(texts), COLOURS.get(row.facts["state"])
        start = len(text)
        text.append(written)
        at = written.find(f" {row.facts['state']}") + 1
        if style and at:
            text.stylize(style, start + at, start + at + len(row.facts["state"]))
    if most is not None and len(rows) > most:
        text.append(f"and {len(rows) - most:,} more\n", style="dim")
    return text


def notes(
    rows: Sequence[RunRow], bad_nodes: Mapping[str, Mapping[str, Any]], *, where: str = "", most: int | None = None
) -> Text:
    """Below the table, a line each: why runs do not go on, which wait for one that does not, for what else jobs wait,
    which runs collapsed, which ranks are slow, and which nodes are left out. where: what a command needs behind a run's
    id to find it from here."""
    failed = [
        f"{row.facts['id']}: {_one_line(row.facts['message']) or 'killed'}"
        for row in rows
        if row.facts["state"] == "failed" or (row.facts["state"] == "stopped" and row.facts["cause"] != "stopped")
    ]
    ill = [f"{row.facts['id']}: {row.facts['health']}" for row in rows if row.facts["health"]]
    slow = [_slow(row.facts, where) for row in rows if row.facts["slow_ranks"]]
    left_out = [
        f"node {name} is left out until {moment(entry['until'])}: {_one_line(entry['why'])} ({entry['run']})"
        for name, entry in sorted(bad_nodes.items())
    ]
    text = Text(no_wrap=True, end="")
    others = [row for row in rows if not row.facts["behind"]]
    for told, style in (
        (failed, ""),
        ([*_idle(rows, where), *_reasons(others, where)], ""),
        (ill, "yellow"),
        (slow, "yellow"),
        (left_out, "yellow"),
    ):
        for line in told[:most]:
            text.append(f"{line}\n", style=style)
        if most is not None and len(told) > most:
            text.append(f"and {len(told) - most:,} more\n", style="dim")
    return text


def counted(rows: Sequence[RunRow], total: int) -> str:
    """How many of `total` runs are shown, and in which states."""
    states = Counter(row.facts["state"] for row in rows)
    known = [f"{states.pop(name)} {name}" for name in STATES if name in states]
    of = f"{len(rows):,} of {total:,}" if len(rows) != total else f"{total:,}"
    return f"{of} {'run' if total == 1 else 'runs'}" + (": " + ", ".join(known) if known else "")


def by_state(rows: Sequence[RunRow]) -> list[RunRow]:
    """What is going on first; the given order within a state."""
    return sorted(rows, key=lambda row: STATES.index(row.facts["state"]))


def moment(when: float | datetime) -> str:
    """14:30 today, otherwise with its date, and with its year where that is far away."""
    when, now = when if isinstance(when, datetime) else datetime.fromtimestamp(when), datetime.now()
    if when.date() == now.date():
        return f"{when:%H:%M}"
    return f"{when:%m-%d %H:%M}" if abs((when - now).days) < FAR_DAYS else f"{when:%Y-%m-%d %H:%M}"


def _waiting(facts: Facts) -> str:
    """The run before it, or Slurm's reason, and when it expects to start the job, where it says so; of what it did not
    take, why; of what it suspended, since when; of a start that does not work yet, what it says itself."""
    if facts["state"] == "not submitted":
        return _cut(facts["message"].removeprefix("sbatch: ").partition(";")[0])
    if facts["suspended"]:
        try:
            return f"suspended since {moment(datetime.fromisoformat(facts['suspended']))}"
        except ValueError:
            return "suspended"
    if facts["behind"]:
        return behind.cell(facts["behind"])
    if facts["state"] == "running" and (facts["stage"] or "").startswith(WAITS):
        return _cut(facts["stage"].removeprefix(WAITS).partition(";")[0])
    if facts["state"] in ACTIVE and facts["why_pending"]:
        try:
            start = f", {moment(datetime.fromisoformat(facts['expected_start']))}"
        except ValueError:
            start = ""
        width = WIDEST - len(start)
        return _cut(reasons.of(facts["why_pending"]).short(width), width) + start
    return ""


def _idle(rows: Sequence[RunRow], where: str) -> list[str]:
    """Who waits for runs that nobody runs: of those that wait for the same ones the first, and how many there are."""
    those: dict[str, list[str]] = {}
    for facts in (row.facts for row in rows):
        for each in (facts, *facts["awaited_by"]):
            if idle := behind.idle(each["behind"]):
                words = _one_line(behind.in_words(idle, Path(facts["path"]).parent, where))
                those.setdefault(words, []).append(each["id"])
    return [
        f"{first} and {len(others)} more wait for {words}" if others else f"{first} waits for {words}"
        for words, (first, *others) in those.items()
    ]


def _reasons(rows: Sequence[RunRow], where: str) -> list[str]:
    """What is to be said of each reason for which Slurm lets jobs wait: to the first run that has it, for all."""
    waiting = [row.facts for row in rows if row.facts["state"] in ACTIVE and row.facts["why_pending"]]
    those: dict[reasons.Reason, list[Facts]] = {}
    for facts in waiting:  # which nodes are away, say, makes no other reason
        those.setdefault(replace(reasons.of(facts["why_pending"]), word=""), []).append(facts)
    return [
        _one_line(
            first["id"]
            + (f" and {len(others)} more" if others else "")
            + f": waits for {reasons.of(first['why_pending']).said(first['job'], first['id'], where)}"
        )
        for reason, (first, *others) in those.items()
        if reason.waits_for
    ]


def _saved(facts: Facts, now: float) -> str:
    """The newest checkpoint of a run that is not done: its step, and how long ago."""
    if facts["checkpoint_step"] is None or facts["state"] == "done":
        return ""
    return f"{facts['checkpoint_step']}, {durations.short(now - facts['checkpoint_time'])} ago"


def _slow(facts: Facts, where: str) -> str:
    command = slow_ranks.what_to_type(facts, where)
    return _one_line(f"{facts['id']}: {slow_ranks.said(facts['slow_ranks'])}" + (f"; {command}" if command else ""))


def _nodes(facts: Facts) -> str:
    """Which, and of a range that was not granted whole how many."""
    fewer = nodes.fewer(facts)
    return ", ".join(filter(None, (_cut(facts["nodelist"]), fewer)))


def _restarts(facts: Facts) -> str:
    """By cause, and how many of them were in the same job."""
    here = f"{facts['in_place']} in place" if facts["in_place"] else ""
    return "; ".join(filter(None, (_pairs(facts["restarts"]), here)))


def _knn(facts: Facts) -> str:
    trained = facts["evals"].get("knn", {}).get("trained")
    return "" if trained is None else f"{trained:.1f} %"


def _pairs(counts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _plain(name: str, found: Any) -> str:
    if found is None:
        return ""
    if name in TIMES:
        return moment(found)
    if name == "seconds_left":
        return durations.short(found)
    if isinstance(found, float):
        return f"{found:.6g}"
    return _one_line(_pairs(found) if isinstance(found, Mapping) else str(found))


def _cut(text: str, width: int = WIDEST) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def _one_line(text: str) -> str:
    if text.isprintable() and "  " not in text and text == text.strip():  # nearly all are, of a hundred thousand
        return text
    return harmless(" ".join(text.split()))
