"""The one way to write a file that others read: whole, or not at all."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from launcher.errors import InputError


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


@contextlib.contextmanager
def writing_in(runs: Path | str, fix: str = "choose another folder with runs=PATH") -> Iterator[None]:
    """Inside, an OSError is the user's to mend, who gave this folder of runs: it becomes an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError.of("runs", runs, f"cannot write there ({error.strerror})", fix) from None


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Replace `path` whole: a reader sees the old file or the new one. `durable`: also after a power cut."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w") as file:
            json.dump(value, file, indent=1)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        beside.rename(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
