"""Simulates what a program cannot bring about on a machine that others use, too: a slow file system, one whose files
cannot be read for a while, a wrong clock.

All are simulated from outside, with a `sitecustomize` on the PYTHONPATH of the run's processes, in which Python itself
then sleeps or errs; the table says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

SLOW_FILES, AWAY_FILES, CLOCK = "slow files", "files away", "clock"
CLOCK_OFF_SECONDS = 3600
SLOW_FILE = "seconds-of-an-fsync"  # its content, beside the sitecustomize, may change while the run goes on
AWAY_FILE = "cannot-be-read"  # likewise: what no rank can open, or list, with all that lies below
PROGRAM = f'''\
import builtins
import errno
import io
import os
import sys
import time

wanted = os.environ.get("DRILL_SIMULATES", "").split(",")
if any(word.endswith(".worker") for word in sys.orig_argv) and "{SLOW_FILES}" in wanted:
    fsync = os.fsync

    def slow(file):
        number = file if isinstance(file, int) else file.fileno()
        if "/checkpoints/" in os.readlink(f"/proc/self/fd/{{number}}"):
            with open(os.path.join(os.path.dirname(__file__), "{SLOW_FILE}")) as seconds:
                time.sleep(float(seconds.read() or 0))
        fsync(file)

    os.fsync = slow
if any(word.endswith(".worker") for word in sys.orig_argv) and "{AWAY_FILES}" in wanted:
    known = os.path.join(os.path.dirname(__file__), "{AWAY_FILE}")

    def failing(function, read=io.open):
        def open_or_fail(file=".", *words, **more):
            path = os.fspath(file) if isinstance(file, (str, os.PathLike)) else ""
            if path.startswith("/"):
                with read(known) as away:
                    place = away.read()
                if place and (path + "/").startswith(place + "/"):
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
            return function(file, *words, **more)

        return open_or_fail

    for module, name in ((io, "open"), (os, "open"), (os, "listdir"), (os, "scandir")):
        setattr(module, name, failing(getattr(module, name)))
    builtins.open = io.open
    os.supports_dir_fd.add(os.open)
    os.supports_fd.update((os.listdir, os.scandir))
if any(word.endswith(".worker") for word in sys.orig_argv) and "{CLOCK}" in wanted:
    rank, now = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")), time.time
    # Rank 0 is as much behind as every other one is ahead.
    shift = {CLOCK_OFF_SECONDS} * (1 if rank != "0" else -1)
    time.time = lambda: now() + shift
'''


def environment(base: Mapping[str, str], wanted: Sequence[str], folder: Path) -> dict[str, str]:
    """`base` for processes that are to meet what is `wanted`: SLOW_FILES, AWAY_FILES, CLOCK. `folder`: seen by all."""
    if not wanted:
        return dict(base)
    folder.mkdir(parents=True, exist_ok=True)
    set_slow_files(folder, 0)
    set_away(folder, "")
    (folder / "sitecustomize.py").write_text(PROGRAM)
    path = f"{folder}:{base['PYTHONPATH']}" if base.get("PYTHONPATH") else str(folder)
    return {**base, "DRILL_SIMULATES": ",".join(wanted), "PYTHONPATH": path}


def set_slow_files(folder: Path, seconds: float) -> None:
    """From now on each fsync of a checkpoint takes so much longer."""
    _replace(folder / SLOW_FILE, str(seconds))


def set_away(folder: Path, path: str) -> None:
    """From now on no rank can read what lies at `path`; empty: all can be read."""
    _replace(folder / AWAY_FILE, path)


def _replace(file: Path, text: str) -> None:
    beside = file.with_name(f".{file.name}")
    beside.write_text(text)
    beside.rename(file)
