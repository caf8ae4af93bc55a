"""The screens that people read. Nothing that is said on them is a command to them: neither markup nor emoji codes of
rich are, which may stand in the name of any file."""

from rich.console import Console


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """width: in characters; None: the terminal's."""
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)
