"""Paths as a person gave them -> from the root on."""

import contextlib
import os
from pathlib import Path


def absolute(path: Path | str) -> Path:
    """From the root on, ~ expanded, by the names that the user knows, none of them followed: what a home is a link to
    on a login node may be nowhere on the others. getcwd(2) follows links, and $PWD does not."""
    path, here = os.path.expanduser(path), os.environ.get("PWD", "")
    # From a folder that was reached by a link, .. leads elsewhere for a shell than for the kernel.
    if not os.path.isabs(path) and os.path.isabs(here) and ".." not in Path(path).parts:
        with contextlib.suppress(OSError):
            if os.path.samefile(here, os.curdir):
                path = os.path.join(here, path)
    return Path(os.path.abspath(path))


def led_to(path: Path | str) -> Path:
    """As `absolute`; where it is a link itself, what that leads to."""
    path = absolute(path)
    return path.resolve() if path.is_symlink() else path
