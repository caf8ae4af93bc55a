"""`sslrun status`: all runs of a folder."""

import json
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING, Any

from launcher.errors import InputError
from launcher.verbs import arguments

if TYPE_CHECKING:
    from launcher.rundir import RunDir

EXAMPLE = "sslrun status"


def add_arguments(parser: ArgumentParser) -> None:
    arguments.add_runs(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """All runs of a folder."""
    from launcher import queue, rundir

    runs = list(rundir.every(arguments.runs_folder(options.overrides)))
    jobs, trouble = queue.of_runs(runs)
    rows = []
    for found in runs:
        try:
            rows.append(found.summary(jobs, digest=False))
        except InputError as error:  # one damaged run must not hide the others
            rows.append(_damaged(found, str(error)))
    if options.json:
        print(json.dumps(rows))
        return 0
    from launcher import view

    view.runs(rows, view.Console(highlight=False))
    if trouble:
        view.console().print(trouble, soft_wrap=True)
    return 0


def _damaged(run: "RunDir", message: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"restarts": {}, "lost_steps": 0, "evals": {}, "step": 0, "steps": 0, "checkpoint": None}
    return {"id": run.id, "path": str(run.path), "method": "?", "state": "failed", **empty, "message": message}
