"""`sslrun show`: one run."""

import json
from argparse import ArgumentParser, Namespace

from launcher.verbs import arguments

EXAMPLE = "sslrun show deepercluster-demo"


def add_arguments(parser: ArgumentParser) -> None:
    arguments.add_run(parser)
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """One run: state, progress, restarts, evaluations."""
    from launcher import queue, view

    found = arguments.find(options)
    summary = found.summary(queue.of_runs([found])[0])
    summary["message"] = queue.last_words(found) or summary["message"]
    if options.json:
        print(json.dumps(summary))
        return 0
    view.show(summary, view.Console(highlight=False))
    return 0
