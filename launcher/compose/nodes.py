"""`nodes=8`, and `nodes=4-8`: as many of these as there are."""

import re
from typing import Any

from launcher.errors import InputError

MOST = 65_536  # Slurm counts no more
_RANGE = re.compile(r"(\d{1,4000})-(\d{1,4000})", re.ASCII)  # int reads no more than 4,300 digits


def read(given: Any) -> tuple[int, int | None]:
    """(how many nodes, or the most of a range; the least of that, else None). 4-4 is 4. Raises InputError."""
    found = _RANGE.fullmatch(given) if isinstance(given, str) else None
    if type(given) is not int and not found:
        shown = "null" if given is None else given
        raise InputError.of("nodes", shown, "it is no integer, and no range of them", "give one, such as 8, or 4-8")
    least, most = map(int, found.groups()) if found else (given, given)
    if max(least, most) > MOST:
        raise InputError.of("nodes", given, "no cluster has as many", f"use at most {MOST}")
    if least > most:
        raise InputError.of("nodes", given, "the range ends before it begins", f"use nodes={typed(least, most)}")
    if least < 1:
        fix = f"use nodes=1-{most}" if most > 1 else "give a positive number"
        raise InputError.of("nodes", given, "it must be at least 1", fix)
    return most, (least if least < most else None)


def check_spares(spares: int, most: int) -> None:
    """A job has them beside `most` nodes. Raises InputError where no cluster has as many."""
    if spares > MOST - most:
        reason = f"no cluster has as many beside {most} nodes"
        raise InputError.of("cluster.spare_nodes", spares, reason, f"use at most {MOST - most}")


def typed(most: int, least: int | None) -> str:
    """What `read` reads again.

    >>> typed(8, None), typed(8, 4)
    ('8', '4-8')
    """
    return str(most) if least is None else f"{least}-{most}"
