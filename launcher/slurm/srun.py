"""What srun says where it could start nothing."""

import re
from collections.abc import Sequence

# What tells most, if it is there: enroot, which makes containers; the node; srun, which knows no such option.
_TELLING = tuple(map(re.compile, (r"\[ERROR\] (.+)", r"slurmstepd\S*: error: (.+)", r"(srun: unrecognized .+)")))


def reason(lines: Sequence[str]) -> str:
    """The line of its standard error that says most of why; the last where none is known to. Empty where all are."""
    said = [line.strip() for line in lines if line.strip()]
    telling = (found[1] for pattern in _TELLING for line in said if (found := pattern.search(line)))
    return next(telling, said[-1] if said else "")
