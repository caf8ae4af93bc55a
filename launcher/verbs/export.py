"""`sslrun export`: the backbone under its library's own parameter names."""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from launcher.errors import InputError
from launcher.spec import registry
from launcher.verbs import arguments

EXAMPLE = "sslrun export deepercluster-demo --out backbone.safetensors"


def add_arguments(parser: ArgumentParser) -> None:
    arguments.add_run(parser)
    parser.add_argument("--out", help="the file to write; backbone.safetensors in the run's folder by default")
    arguments.add_json(parser)


def run(options: Namespace) -> int:
    """The backbone as safetensors."""
    found = arguments.find(options)
    if not registry.method(found.spec().method.name).trains:
        raise InputError.of("RUN", found.id, "it trains nothing, and so has no weights", "give a run that trains")
    from methods.backbones.export import export  # torch comes with it

    target = Path(options.out) if options.out else found.path / "backbone.safetensors"
    metadata = export(found, target)
    print(
        f"loads with strict=True into {metadata['load']}; {metadata['padding']}\ninput: {metadata['input']}",
        file=sys.stderr,
    )
    print(json.dumps({"file": str(target), **metadata}) if options.json else target)
    return 0
