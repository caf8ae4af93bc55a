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
_NAMED = re.compile(r"--([\w-]+)")


def reason(lines: Sequence[str]) -> str:
    """The line of its standard error that says most of why; the last where none is known to. Empty where all are."""
    said = [line.strip() for line in lines if line.strip()]
    telling = (found[1] for pattern in _TELLING for line in said if (found := pattern.search(line)))
    return next(telling, said[-1] if said else "")


def check(cluster: ClusterConfig) -> None:
    """Raises InputError where the srun of this machine does not take an option of `cluster.srun`: one that it does not
    know, whose plugin is not here, or that takes a value and has none."""
    options = script.options_of_steps(cluster)
    if not client.installed("srun"):
        return
    # It reads them, and does nothing. One that lacks its value would take the next word for it.
    without = [[option] for option in options if "=" not in option]
    for asked in filter(None, ([option for option in options if "=" in option], *without)):
        try:
            client.run(["srun", *asked, "--version"], environment=client.plain())
        except ClusterError as error:
            _refuse(cluster, asked, str(error))


def _refuse(cluster: ClusterConfig, asked: Sequence[str], said: str) -> None:
    given = {key.replace("_", "-"): key for key in cluster.srun}
    if len(asked) == 1 and "No command given" in said:
        key = given[asked[0].removeprefix("--")]
        raise InputError.of(f"cluster.srun.{key}", "true", "srun takes a value for it", "give one")
    unknown = [found["name"] for found in [_OPTION.search(said)] if found]
    named = [name for name in _NAMED.findall(said) if name in given] or unknown
    if named:
        reason = f"srun does not take it here ({said.replace('srun: ', '')})"
        fix = "see `srun --help`; it shows the options of plugins such as Pyxis, where they are installed"
        raise InputError.of(f"cluster.srun.{given.get(named[0], named[0])}", ..., reason, fix)
