"""`sslrun method=...`: submit or join one run, or a sweep of them."""

from argparse import ArgumentParser, Namespace

from launcher.errors import InputError
from launcher.verbs import arguments, drive


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("-m", "--multirun", action="store_true", help="several runs: key=a,b or key=range(0,4)")
    parser.add_argument("--wait", action="store_true", help="with --multirun: show a table until all have ended")
    parser.add_argument("--anyway", action="store_true", help="also where this machine has too little memory for it")
    arguments.add_composing(parser)


def run(options: Namespace) -> int:
    """Submit or join one run."""
    from launcher.compose.training import resolve

    if options.multirun:
        from launcher.verbs import multirun

        return multirun.run(options)
    if options.wait:
        raise InputError(
            "--wait: this is one run; leave it out, and `sslrun logs RUN -f` follows it, or add --multirun"
        )
    if any(word.startswith("sweep=") for word in options.overrides):
        name = next(word for word in options.overrides if word.startswith("sweep=")).partition("=")[2]
        raise InputError.of("sweep", name, "this is several runs", "add --multirun")
    if options.cfg:
        return arguments.print_config(options, planning=False)
    spec, _ = resolve(options.overrides, config_dir=options.config_dir)
    return drive.submit_or_join(spec, options, anyway=options.anyway)
