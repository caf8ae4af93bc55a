"""`sslrun best`: the runs of a folder by one of their scores."""

import json
from argparse import ArgumentParser, Namespace

from launcher.errors import InputError
from launcher.verbs import arguments

EXAMPLE = "sslrun best linear.top1 --where method=dino --where method.epochs=100"


def add_arguments(parser: ArgumentParser) -> None:
    what = "PROTOCOL.SCORE, as knn.trained or linear.top1, or PROTOCOL, whose first score it is then"
    parser.add_argument("metric", metavar="METRIC", help=what)
    arguments.add_runs(parser)
    arguments.add_where(parser)
    parser.add_argument("--smallest", action="store_true", help="the smallest first; else the largest")
    parser.add_argument("--last", type=int, metavar="N", help="only the N of these runs that were started last")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """The runs that have a score, the best first: each with its newest, of which step that is, and in what the runs
    differ."""
    from launcher.report import best, query
    from launcher.report.bar import STOPPED, Bar
    from launcher.report.index import RunIndex

    if options.last is not None and options.last < 1:
        raise InputError.of("--last", options.last, "that is no run", "give a positive number")
    where = [query.Condition.read(said) for said in options.where]
    folder = arguments.runs_folder(options.overrides)
    with Bar(STOPPED) as bar:
        every, trouble = RunIndex(folder, config=True).rows(bar)
    query.refuse_unknown("--where", [condition.key for condition in where], every)
    metric = best.named(options.metric, every)
    rows = [row for row in every if all(condition.holds(row) for condition in where)]
    found = best.placed(metric, rows, smallest=options.smallest, last=options.last)
    if trouble:
        arguments.say(trouble)
    if options.json:
        print(json.dumps([each.to_json() for each in found]))
        return 0
    from launcher.report import screen

    console = screen.console()
    others, width = best.alike(metric[0], rows), screen.width_of(console)
    screen.show(best.texts(found, ".".join(metric), len(every), folder, width, others), console)
    return 0
