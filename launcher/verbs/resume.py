"""`sslrun resume`: go on with a run from its newest checkpoint."""

from argparse import ArgumentParser, Namespace

from launcher.verbs import arguments, launch

EXAMPLE = "sslrun resume deepercluster-demo"


def add_arguments(parser: ArgumentParser) -> None:
    arguments.add_run(parser)
    parser.add_argument("--force", action="store_true", help="also after a divergence, which will probably recur")
    parser.add_argument(
        "--code",
        choices=("submitted", "current"),
        default="submitted",
        help="current: take the code as it is now, instead of the snapshot that the run was submitted with",
    )
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """Go on with a run from its newest checkpoint, with the code that it was submitted with."""
    found = arguments.find(options)
    if options.code == "current" and found.state().name != "done":
        from launcher import snapshot

        found.refuse_second_writer()
        found.adopt(snapshot.take(found.spec().method.name, found.path.parent))
    return launch.go_on(found, options, joined=True, force=options.force)
