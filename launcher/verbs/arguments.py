"""What several verbs take from the command line, and how they answer."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import InputError, harmless
from launcher.spec import paths

if TYPE_CHECKING:
    from launcher.run.folder import RunDir


def add_run(parser: ArgumentParser) -> None:
    """RUN and runs=FOLDER."""
    parser.add_argument("run", metavar="RUN", help="an id, its beginning, or a path")
    add_runs(parser)


def add_runs(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", default=[], metavar="runs=FOLDER")


def add_where(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs for which this holds, with = != < <= > or >=, of any key: state, step, method.lr, seed, "
        "cluster.partition, evals.knn.trained, restarts.preempted; given again: both hold",
    )


def add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="the last line of stdout is JSON")


def add_config_dir(parser: ArgumentParser) -> None:
    """--config-dir, or what the environment says in its place."""
    given = os.environ.get("SSLRUN_CONFIG_DIR")
    told = "a folder with your own groups: method/, data/, cluster/; SSLRUN_CONFIG_DIR by default"
    parser.add_argument("--config-dir", type=_path, default=given and _path(given), help=told)


def _path(text: str) -> Path:
    """A shell leaves the ~ of --config-dir=~/mine alone."""
    return Path(text).expanduser()


def add_composing(parser: ArgumentParser) -> None:
    """Options of what composes a spec."""
    add_config_dir(parser)
    parser.add_argument("--cfg", action="store_true", help="print the composed config and stop")
    add_json(parser)


def names_sweep(words: Iterable[str]) -> bool:
    """Whether they ask for `sweep=NAME`, about which `launcher.sweep.asked` knows more."""
    return any(word.partition("=")[0].lstrip("+~") == "sweep" for word in words)


def find(options: Namespace) -> "RunDir":
    """The run that `RUN` and `runs=` mean."""
    from launcher.run import folder

    return folder.find(options.run, runs_folder(options.overrides))


def runs_folder(overrides: list[str]) -> Path:
    """The folder that `runs=` names, ./runs by default. Raises InputError for any other override."""
    folder = Path("runs")
    for text in overrides:
        key, _, value = text.partition("=")
        if key != "runs":
            raise InputError(f"{text}: this verb takes runs=FOLDER and nothing else")
        if value[:1] in ("'", '"'):
            from launcher.compose.overrides import text_of  # Hydra is slow to load

            value = text_of(text)
        folder = Path(value)
    return paths.absolute(folder)


def runs_option(run: "RunDir") -> str:
    """What a person must add so that the run is found from here."""
    return runs_option_of(run.runs)


def runs_option_of(folder: Path) -> str:
    """The same for any run of `folder`."""
    import shlex

    return "" if folder == paths.absolute("runs") else f" runs={shlex.quote(str(folder))}"


def print_config(options: Namespace, *, planning: bool) -> int:
    """`--cfg`: the composed config as YAML."""
    from omegaconf import OmegaConf

    from launcher.compose.training import composed

    root, _ = composed(options.overrides, config_dir=options.config_dir, planning=planning)
    print(OmegaConf.to_yaml(root), end="")
    return 0


def answer(run: "RunDir", options: Namespace, *, joined: bool, state: str, job: str | None = None) -> None:
    """The JSON of a launch, where it is asked for."""
    if options.json:
        print(json.dumps({"id": run.id, "path": str(run.path), "state": state, "job": job, "joined": joined}))


def say(line: str) -> None:
    """To whoever looks on: stdout is the answer's."""
    print(harmless(line), file=sys.stderr, flush=True)
