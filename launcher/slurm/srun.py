"""What srun says: of options that it does not take, and where it could start nothing."""

import re
from collections.abc import Sequence

from launcher.errors import ClusterError, InputError
from launcher.plan import script
from launcher.slurm import client
from launcher.spec.schema import ClusterConfig

# What tells most, if it is there: enroot, which makes containers; the node; srun, which knows no such option.
_TELLING = tuple(map(re.compile, (r"\[ERROR\] (.+)", r"slurmstepd\S*: error: (.+)", r"(srun: unrecognized .+)")))
_OPTION = re.compile(r"option '--(?P<name>[\w-]+)")


def reason(lines: Sequence[str]) -> str:
    """The line of its standard error that says most of why; the last where none is known to. Empty where all are."""
    said = [line.strip() for line in lines if line.strip()]
    telling = (found[1] for pattern in _TELLING for line in said if (found := pattern.search(line)))
    return next(telling, said[-1] if said else "")


def check(cluster: ClusterConfig) -> None:
    """Raises InputError where the srun of this machine does not take an option of `cluster.srun`: one that it does not
    know, or whose plugin is not here."""
    options = script.options_of_steps(cluster)
    if not options or not client.installed("srun"):
        return
    try:
        client.run(["srun", *options, "--version"], environment=client.plain())  # reads them, and does nothing
    except ClusterError as error:
        if found := _OPTION.search(str(error)):
            given = {key.replace("_", "-"): key for key in cluster.srun}
            key = given.get(found["name"], found["name"])
            reason = f"srun does not take it here ({str(error).replace('srun: ', '')})"
            fix = "see `srun --help`; it shows the options of plugins such as Pyxis, where they are installed"
            raise InputError.of(f"cluster.srun.{key}", ..., reason, fix) from None
