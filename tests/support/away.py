"""Files that are there and cannot be read for a while, as of a file server that is away.

For Python's own functions, within the process of a test: root may open anything, and no disk fails when it is asked to.
"""

import builtins
import io
import os
from collections.abc import Callable
from pathlib import Path


def install(monkeypatch, number: int) -> Callable[..., None]:
    """`away(path, times)`: it, and all below, cannot be opened or listed so many times, by default for ever, because of
    the error `number`; `away(None)`: everything can."""
    place, left = "", 0.0

    def failing(function: Callable) -> Callable:
        def open_or_fail(file=".", *args, **more):
            nonlocal left
            path = os.fspath(file) if isinstance(file, str | os.PathLike) else ""
            if place and left > 0 and f"{path}/".startswith(f"{place}/"):
                left -= 1
                raise OSError(number, os.strerror(number), path)
            return function(file, *args, **more)

        return open_or_fail

    for module, name in ((io, "open"), (os, "open"), (os, "listdir"), (os, "scandir")):
        monkeypatch.setattr(module, name, failing(getattr(module, name)))
    monkeypatch.setattr(builtins, "open", io.open)

    def away(path: Path | None, times: float = float("inf")) -> None:
        nonlocal place, left
        place, left = os.fspath(path) if path else "", times

    return away
