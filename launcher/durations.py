"""Durations as people read them, each in the form that suits its place, and as they write them for Slurm."""

import math
import re

# As sbatch's --time takes it: [hours:]minutes:seconds, or days-hours[:minutes[:seconds]].
_CLOCK = re.compile(r"(?:(\d+):)?(\d+):(\d+)")
_DAYS = re.compile(r"(\d+)-(\d+)(?::(\d+)(?::(\d+))?)?")


def minutes(text: str) -> int:
    """Of what Slurm takes for a time limit, in whole minutes as Slurm rounds them: up. Raises ValueError.

    >>> minutes("90"), minutes("2:00:00"), minutes("90:00"), minutes("1-12"), minutes("0:30")
    (90, 120, 90, 2160, 1)
    """
    return math.ceil(seconds(text) / 60)


def seconds(text: str) -> int:
    """The same, in seconds. Raises ValueError.

    >>> seconds("00:01:30"), seconds("2"), seconds("1-00:00:01")
    (90, 120, 86401)
    """
    if text.strip().isdecimal():
        return 60 * int(text)
    if found := _CLOCK.fullmatch(text.strip()):
        days, (hours, minutes, rest) = 0, (int(part or 0) for part in found.groups())
    elif found := _DAYS.fullmatch(text.strip()):
        days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    else:
        raise ValueError(text)
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def short(seconds: float | None) -> str:
    """In at most six characters: 45s, 12min, 3h05, 2.1d; nothing where nobody knows it."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    seconds = max(0, int(seconds))
    if seconds < 100 * 60:
        return f"{seconds}s" if seconds < 100 else f"{seconds // 60}min"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02}" if seconds < 48 * 3600 else f"{seconds / 86400:.1f}d"


def exact(seconds: float) -> str:
    """In two units: 45 s, 3 min 05 s, 2 h 05 min; 2.1 days."""
    if seconds < 3600:
        return f"{seconds:.0f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"
    hours = f"{seconds // 3600:.0f} h {seconds % 3600 // 60:02.0f} min"
    return hours if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"


def rough(seconds: float) -> str:
    """In the largest unit of which there are two, with two digits.

    >>> rough(1.234), rough(45), rough(100), rough(9000), rough(1e6)
    ('1.2 s', '45 s', '100 s', '2.5 h', '12 days')
    """
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.2g} {name}" if seconds < 10 * unit else f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def limit(minutes: int) -> str:
    """In the largest unit of which there are two, to the minute: 90 minutes, 2.5 hours, 2 days."""
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes / 60:g} hours" if minutes < 2880 else f"{minutes / 1440:g} days"
