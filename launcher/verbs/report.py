"""`sslrun report`: a sweep beside the paper's table, or the life of one run."""

import json
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import InputError, harmless
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.sweep.asked import Asked

EXAMPLE = "sslrun report sweep=swav/prototypes recipe=demo, sslrun report swav-demo"


def add_arguments(parser: ArgumentParser) -> None:
    what = "sweep=<paper>/<table> and recipe, seed, runs; or RUN and runs=FOLDER"
    parser.add_argument("words", nargs="+", metavar="RUN|key=value", help=what)
    parser.add_argument("--markdown", action="store_true", help="the table of a sweep as a section of a document")
    parser.add_argument(
        "--out",
        type=lambda text: Path(text).expanduser(),
        metavar="FILE",
        help="the page; reports/ in the folder of runs by default",
    )
    arguments.add_config_dir(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Ours beside the paper's, or one run's life: a table here, and a page that any browser opens from disk."""
    from launcher.sweep import asked

    if options.markdown and options.json:
        raise InputError.of("--markdown", "--json", "both say how to answer", "give one of them")
    words = [word for word in options.words if not word.startswith("runs=")]
    folder = arguments.runs_folder([word for word in options.words if word.startswith("runs=")])
    names = [word for word in words if "=" not in word]
    table = asked.read(words, options.config_dir) if not names else None
    if table:
        return _sweep(table, folder, options)
    if len(words) != 1 or not names:
        raise InputError.of("RUN", " ".join(words), "that is no one run", "give a run, or sweep=<paper>/<table>")
    if options.markdown:
        raise InputError.of("--markdown", names[0], "only the table of a sweep has it", "leave it out")
    return _run(names[0], folder, options)


def _sweep(wanted: "Asked", folder: Path, options: Namespace) -> int:
    from launcher.report import page, table, terminal
    from launcher.report.bar import STOPPED, Bar
    from launcher.sweep import ablation

    with Bar(STOPPED) as bar:
        found = table.gather(wanted, folder, ablation.own_methods(options.config_dir), bar)
    if options.markdown:
        print(harmless(terminal.markdown(found, _command(options, markdown=True))))
        return 0
    default = page.default_path(found.folder, f"{found.ablation.name}-{found.scale}")
    file, said = _written(options.out, default, lambda file: page.sweep(found, file, _command(options)))
    if options.json:
        print(json.dumps({**found.to_json(), "page": file}, allow_nan=False))
    else:
        terminal.show(found, terminal.screen())
    arguments.say(said)
    return 0


def _run(name: str, folder: Path, options: Namespace) -> int:
    from launcher.report import life, page, terminal
    from launcher.run.folder import find

    wanted = find(name, folder)
    found = life.of(wanted)
    default = page.default_path(wanted.runs, found.id)
    file, said = _written(options.out, default, lambda file: page.run(found, file, _command(options)))
    if options.json:
        print(json.dumps({**found.to_json(), "page": file}))
    else:
        terminal.show_run(found, terminal.screen())
    arguments.say(said)
    return 0


def _written(asked: Path | None, default: Path, write: Callable[[Path], None]) -> tuple[str | None, str]:
    """(the page's file, what to say of it). A colleague's runs are read all the same where no page can be left beside
    them. Raises InputError where the file was asked for."""
    if not asked and not default.parent.parent.is_dir():
        return None, f"no page: there is no folder {default.parent.parent}"
    try:
        write(asked or default)
    except InputError as error:
        if asked:
            raise
        return None, f"no page: {error}"
    return str(asked or default), f"page: {asked or default}"


def _command(options: Namespace, *, markdown: bool = False) -> str:
    """What made the report, without where its files are."""
    words = [word for word in options.words if not word.startswith("runs=")]
    return shlex.join(["sslrun", "report", *words, *(["--markdown"] if markdown else [])])
