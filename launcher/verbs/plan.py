"""`sslrun plan`: what would be submitted, and why."""

import json
from argparse import ArgumentParser, Namespace

from launcher.verbs import arguments

EXAMPLE = "sslrun plan method=deepercluster nodes=8"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    arguments.add_composing(parser)


def run(options: Namespace) -> int:
    """What would be submitted, and why."""
    from launcher import plan as planning
    from launcher.compose import resolve

    if options.cfg:
        return arguments.print_config(options, planning=True)
    spec, recipe = resolve(options.overrides, config_dir=options.config_dir, planning=True)
    plan = planning.make(spec, recipe)
    if options.json:
        print(json.dumps(plan.to_json()))
        return 0
    from launcher import view

    screen = view.Console(highlight=False)
    view.plan(plan, screen)
    if spec.cluster.name == "generic":
        screen.print("No cluster is named: a generic one of 8 GPUs a node is assumed (cluster=NAME picks another).")
    if spec.data.name in ("image_folder", "shards") and not spec.data.path:
        screen.print(f"data.path is not given yet; the size is the recipe's, {recipe.images:,} images.")
    return 0
