"""`sslrun`: the parser and the table of verbs. Our own parser, because Hydra's rejects verbs.

Nothing here imports torch; what a verb needs beyond the standard library is imported in the verb.
"""

import contextlib
import errno
import gc
import importlib
import json
import locale
import os
import shutil
import sys
import textwrap
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from launcher.errors import InputError, RunFailed, SslrunError, harmless, unknown
from launcher.start import streams

ABOUT = "Train self-supervised vision models on Slurm clusters, and on the machine at hand."
EXAMPLES = {
    "sslrun method=deepercluster nodes=8": "submit one run to the cluster",
    "sslrun method=swav nodes=4-8": "on as many as there are",
    "sslrun method=deepercluster recipe=demo": "minutes, on this machine",
    "sslrun --multirun method=rotnet seed=0,1,2": "several runs, one job array",
    "sslrun --multirun sweep=swav/prototypes": "a paper's table",
    "sslrun plan method=deepercluster nodes=8": "what it would take, and why",
    "sslrun best knn.trained": "the runs by a score",
    "sslrun report RUN, or sweep=PAPER/TABLE": "a page; ours beside the paper's",
    "sslrun sweep list": "the papers' tables, what was run",
    "sslrun kmeans features=PATH k=80000": "cluster features of files or runs",
    "sslrun shards /data/images /scratch/shards": "a folder of images as large tars",
    "sslrun drill method=rotnet": "kill one on purpose: same end",
}
OF_A_RUN = ("show RUN", "logs RUN -f", "resume RUN", "cancel RUN", "prune RUN", "eval RUN", "export RUN")
FIELDS = """
method, recipe, data, eval_data, cluster, nodes, tasks_per_node, seed, init_from, continue_from, runs and group are set
at the root; all else in its group: method.lr=0.2, data.path=/images. `sslrun plan METHOD... --cfg` prints every field.
"""
MARGIN = 2  # columns that argparse leaves free at the right, too
VERBS = (
    "plan", "status", "best", "show", "logs", "resume", "cancel", "prune",
    "eval", "export", "report", "sweep", "doctor", "drill", "kmeans", "shards",
)  # fmt: skip

SELDOM = 100_000, 20, 20  # new objects until garbage is looked for among them: modules, and rows of many runs, stay
DELETING = ("prune",)
READING = ("plan", "status", "best", "show", "logs", "report", "sweep")  # nothing is lost where their reader goes


def main(arguments: list[str] | None = None) -> None:
    """The console script. Exit codes: 0 done or joined, 2 input, 3 cluster, 4 failed, 5 no progress, 130 stopped."""
    alone = arguments is None
    if alone:
        gc.set_threshold(*SELDOM)
        _in_utf8()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    streams.never_fail(reading=bool(arguments) and arguments[0] in READING)
    code = _ended(arguments)
    if trouble := streams.lost_answer():
        print(f"sslrun: the answer on stdout could not be written: {trouble}", file=sys.stderr)
    if alone:
        gc.freeze()  # in all that ends now Python would look for garbage: a fifth of a plan's time
    sys.exit(code or (RunFailed.exit_code if trouble else 0))


def _ended(arguments: list[str]) -> int:
    """The exit code; what is wrong is said in one line."""
    try:
        return _dispatch(arguments)
    except SystemExit as error:  # of argparse, which has shown its help
        return error.code or 0
    except SslrunError as error:
        print(f"sslrun: {error}", file=sys.stderr)
        if "--json" in arguments:
            with contextlib.suppress(OSError):  # `main` says it
                print(json.dumps({"error": str(error), "exit_code": error.exit_code}))
        return error.exit_code
    except OSError as error:
        if streams.lost_answer():
            return RunFailed.exit_code
        gone = "the folder that you are in is gone; cd somewhere else" if error.errno == errno.ENOENT else ""
        what = error.filename or gone
        print(harmless(f"sslrun: {error.strerror}{what and ': '}{what}"), file=sys.stderr)
        return InputError.exit_code
    except KeyboardInterrupt:
        return 130


def _in_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding: files, and names of files, are UTF-8 on
    all the machines that they come to. What is said stays in the encoding of whoever reads it."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # of the ranks, too
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    # In C and POSIX, which say nothing of the terminal, Python takes UTF-8 by itself.
    if sys.flags.utf8_mode and locale.setlocale(locale.LC_CTYPE) not in ("C", "POSIX"):
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(encoding=locale.getencoding(), errors="backslashreplace")


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments and arguments[0] in VERBS else None
    if name is None and arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        if meant := _meant(arguments):
            raise InputError(f"{arguments[0]}: there is no such verb; type `{meant}`")
        unknown("verb", arguments[0], VERBS, never=DELETING)
    verb = importlib.import_module(f"launcher.verbs.{name or 'launch'}")
    parser = _parser(name, verb)
    try:
        options = parser.parse_intermixed_args(arguments[1:] if name else arguments)
    except InputError:
        if name is None and (meant := _meant(arguments)):
            raise InputError(f"fields are set as key=value; type `{meant}`") from None
        raise
    if name is None and not options.overrides:
        parser.print_help()
        return 0
    return verb.run(options)


def _meant(arguments: list[str]) -> str:
    """The command that somebody may have meant."""
    from launcher.compose import other_words
    from launcher.spec import registry

    return other_words.line(arguments, VERBS, registry.names())


class _Parser(ArgumentParser):
    """argparse with our exit code and one line."""

    def format_help(self) -> str:
        if self.get_default("verb") == "launch":  # it asks every method, of which a launch needs one
            from launcher.spec import registry

            width = shutil.get_terminal_size().columns - MARGIN
            methods = _listed({method: registry.summary(method) for method in registry.names()}, width)
            self.description, self.epilog = _about(width), f"methods:\n{methods}"
        return super().format_help()

    def error(self, message: str) -> None:  # type: ignore[override]
        raise InputError(f"{message}; see `{self.prog} --help`")


def _parser(name: str | None, verb: ModuleType) -> ArgumentParser:
    if name:
        about = {"prog": f"sslrun {name}", "description": verb.run.__doc__, "epilog": f"example: {verb.EXAMPLE}"}
    else:
        about = {"prog": "sslrun", "formatter_class": RawDescriptionHelpFormatter}
    parser = _Parser(**about, allow_abbrev=False)
    parser.set_defaults(verb=name or "launch")
    verb.add_arguments(parser)
    return parser


def _about(width: int) -> str:
    """What `sslrun --help` begins with, in lines of at most `width` characters where no word is longer."""
    verbs = textwrap.fill(f"sslrun status | {' | '.join(OF_A_RUN)} | doctor", width, **_indented(2, 4))
    parts = (_filled(ABOUT, width), f"{_listed(EXAMPLES, width)}\n{verbs}", _filled(FIELDS, width))
    return "\n\n".join(parts)


def _listed(rows: Mapping[str, str], width: int) -> str:
    """Two columns, the second one wrapped."""
    first = max(map(len, rows)) + 4
    if width - first < width // 4:  # no room beside it
        return "\n".join(f"  {name}\n{textwrap.fill(said, width, **_indented(6, 6))}" for name, said in rows.items())
    return "\n".join(
        textwrap.fill(f"  {name:{first - 2}}{said}", width, **_indented(0, first)) for name, said in rows.items()
    )


def _filled(text: str, width: int) -> str:
    return textwrap.fill(" ".join(text.split()), width, **_indented(0, 0))


def _indented(first: int, others: int) -> dict[str, Any]:
    """Words of commands and paths stay whole: they are there to be copied."""
    kept = {"break_long_words": False, "break_on_hyphens": False}
    return {"initial_indent": " " * first, "subsequent_indent": " " * others, **kept}


if __name__ == "__main__":
    main()
