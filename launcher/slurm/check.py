"""What `sslrun doctor` finds."""

from collections.abc import Sequence
from dataclasses import dataclass

OK, WARN, BAD = "ok", "warn", "bad"


@dataclass(frozen=True)
class Check:
    """One finding. `level`: ok, warn (it works, at a price) or bad (a job will not run); advice: what to do, or ""."""

    check: str
    level: str
    found: str
    advice: str = ""


def some(names: Sequence[str], *, most: int = 8) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
