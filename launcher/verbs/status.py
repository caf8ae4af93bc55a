"""`sslrun status`: the runs of a folder, as a table, live, as CSV or as JSON; any of them, in any order."""

import csv
import json
import math
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.errors import InputError, harmless
from launcher.verbs import arguments

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from launcher.report.index import RunIndex, RunRow
    from launcher.report.query import Condition
    from launcher.run.at_once import Show

EXAMPLE = "sslrun status --watch, sslrun status --where state=done --where 'method.lr>=0.1' --sort=-evals.knn.trained"
WATCH_SECONDS = 5.0
WORDS_SECONDS = 0.4  # how long Slurm may take to say more about jobs that never began


def add_arguments(parser: ArgumentParser) -> None:
    arguments.add_runs(parser)
    parser.add_argument("--watch", action="store_true", help="stay and show what changes, until Ctrl-C")
    arguments.add_where(parser)
    parser.add_argument("--sort", metavar="KEY", help="by any such key; --sort=-KEY begins with the largest")
    parser.add_argument("--columns", metavar="KEY,KEY", help="these and no others; with --json: these, too")
    parser.add_argument("--csv", action="store_true", help="every key, or --columns, for a spreadsheet")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """The runs of a folder: state, progress, checkpoints, restarts, time left, k-NN; what is going on comes first."""
    from launcher.report import query
    from launcher.report.bar import STOPPED, Bar
    from launcher.report.index import RunIndex

    _refuse_contradictions(options)
    where = [query.Condition.read(said) for said in options.where]
    columns = query.keys_of(options.columns) if options.columns is not None else []
    sort = [options.sort.removeprefix("-")] if options.sort else []
    asked = {"--where": [condition.key for condition in where], "--sort": sort, "--columns": columns}
    config = (options.csv and not columns) or any(map(query.needs_config, asked.values()))
    view = _View(RunIndex(arguments.runs_folder(options.overrides), config=config), where, options.sort, asked)
    if options.watch:
        return _watch(view)
    with Bar(STOPPED) as bar:
        rows, _, trouble = view.rows(bar)
    if trouble:
        arguments.say(trouble)
    view.explain(rows)
    if options.json:
        print(_json(rows, columns))
    elif options.csv:
        _write_csv(rows, columns)
    else:
        from launcher.report import screen

        console = screen.console()
        screen.show(view.texts(rows, screen.width_of(console)), console)
    return 0


def _refuse_contradictions(options: Namespace) -> None:
    answers = [name for name in ("watch", "csv", "json") if getattr(options, name)]
    if len(answers) > 1:
        raise InputError.of(f"--{answers[0]}", f"--{answers[1]}", "both say how to answer", "give one of them")
    if options.watch and not sys.stdout.isatty():
        raise InputError("--watch: the answer goes to no terminal; leave it out, or ask again and again for --json")


class _View:
    """What was asked for: of which runs, in which order, in which columns."""

    def __init__(
        self, index: "RunIndex", where: "Sequence[Condition]", sort: str | None, asked: Mapping[str, Sequence[str]]
    ):
        """`asked`: {option: the keys that it names}."""
        self._index, self._where, self._sort, self._asked = index, where, sort, asked
        self._folder: Path = index.runs
        self._total = 0
        self._words: dict[tuple[str, str], str] = {}  # (run, job) -> why the job ended before the run began
        self._asking: threading.Thread | None = None
        self._foreseen: dict[tuple, Any] = {}  # when runs end; see ahead.py

    def rows(self, show: "Show | None" = None) -> "tuple[list[RunRow], int, str]":
        """(the rows, of how many runs, why the queue could not be asked). Raises InputError for an unknown key."""
        from launcher.report import ahead, listing, query

        rows, trouble = self._index.rows(show)
        for option, names in self._asked.items():
            query.refuse_unknown(option, names, rows)
        self._total = len(rows)
        ahead.add(rows, self._foreseen)
        rows = [row for row in listing.by_state(rows) if all(condition.holds(row) for condition in self._where)]
        return query.ordered(rows, self._sort) if self._sort else rows, self._total, trouble

    def explain(self, rows: "Sequence[RunRow]") -> None:
        """Put Slurm's last words about jobs that ended before their run began into the rows, as far as it says them in
        time; what it says later is there for the next call.
        """
        lost = [row.facts for row in rows if row.facts["lost_job"]]
        unknown = [facts for facts in lost if (facts["id"], facts["lost_job"]) not in self._words]
        if unknown and not (self._asking and self._asking.is_alive()):
            self._asking = threading.Thread(target=self._ask, args=(unknown,), daemon=True)
            self._asking.start()
            self._asking.join(WORDS_SECONDS)
        for facts in lost:
            facts["message"] = self._words.get((facts["id"], facts["lost_job"])) or facts["message"]

    def _ask(self, lost: Sequence[dict[str, Any]]) -> None:
        from launcher.run.folder import RunDir
        from launcher.slurm import queue

        for facts in lost:
            try:
                said = queue.last_words(RunDir(facts["path"]))
            except Exception:  # removed meanwhile, or damaged: an explanation is welcome, and no more
                said = ""
            self._words[facts["id"], facts["lost_job"]] = said

    def texts(self, rows: "Sequence[RunRow]", width: int, height: int | None = None) -> Iterator[Any]:
        """The table and what is to be said below it, in at most `height` lines."""
        from rich.text import Text

        from launcher.report import listing
        from launcher.slurm import badnodes

        if self._asked["--columns"]:
            titles, cells = listing.asked_for(self._asked["--columns"], rows)
        else:
            titles, cells = listing.that_fit(rows, width)
        most = None if height is None else listing.NOTES
        where = arguments.runs_option_of(self._folder)
        notes = listing.notes(rows, badnodes.listed(self._folder), where=where, most=most)
        room = None if height is None else max(1, height - len(notes.plain.splitlines()) - 4)
        if rows:
            yield listing.lines(rows, titles, cells, most=room)
        yield notes
        total = (
            f"{listing.counted(rows, self._total)} in {self._folder}" if self._total else f"no runs in {self._folder}"
        )
        yield Text(f"{total}\n", style="dim", no_wrap=True, end="")


def _watch(view: _View) -> int:
    from rich.live import Live

    from launcher.report.screen import console

    screen = console()
    try:
        with Live(console=screen, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                rows, _, trouble = view.rows()
                view.explain(rows)
                live.update(_Frame(view, rows, trouble), refresh=True)
                time.sleep(WATCH_SECONDS)
    except KeyboardInterrupt:
        return 0


class _Frame:
    """One picture of what is watched, in the size that the terminal has when it is drawn."""

    def __init__(self, view: _View, rows: "Sequence[RunRow]", trouble: str):
        self._view, self._rows, self._trouble = view, rows, trouble

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        from rich.text import Text

        yield from self._view.texts(self._rows, options.max_width, console.height - bool(self._trouble))
        if self._trouble:
            yield Text(f"{self._trouble}\n", style="red", no_wrap=True, overflow="ellipsis", end="")


def _json(rows: "Sequence[RunRow]", columns: Sequence[str]) -> str:
    from launcher.report import query

    answer = [{**row.facts, **{name: query.value(row, name) for name in columns}} for row in rows]
    try:
        return json.dumps(answer, allow_nan=False)
    except ValueError:  # a loss that is not a number, which JSON has no word for
        return json.dumps(_finite(answer))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(rows: "Sequence[RunRow]", columns: Sequence[str]) -> None:
    from launcher.report import query
    from launcher.report.index import EMPTY

    if columns:
        answer = [{name: query.value(row, name) for name in columns} for row in rows]
    else:
        answer = [query.every_key(row) for row in rows]
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = columns or list(dict.fromkeys(name for row in answer for name in row)) or list(EMPTY)
    writer.writerow(map(_cell, names))
    for row in answer:
        writer.writerow([_cell(row.get(name)) for name in names])


def _cell(value: Any) -> Any:
    """Of a spreadsheet, which takes a text that begins like a formula for one, unless there is a quote before it."""
    if isinstance(value, dict | list | bool):
        return json.dumps(value)
    if not isinstance(value, str):
        return value
    return harmless(f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value)
