"""Copies of the shards on a node's own disk, made once by one of its ranks before training, found by the next run.

    STAGE/sslrun-<user>-<hash of the data folder>/shard-000000.tar    with the size and the time of what it is a copy of

Others write in STAGE, too, and know that name: the folder has to be the user's, and closed to all others, before any
file in it is taken for a copy. Every rank sees images of all shards, since an epoch is a permutation of all of them: a
node copies all.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import InputError
from launcher.run.files import NotOurs, opened, own_folder, replacing
from methods.data.shards import ImageShards

if TYPE_CHECKING:
    from methods.engine.job import Job

CHUNK = 8 << 20  # bytes
LOOK_SECONDS = 0.5  # between two safe points while a node copies
SAY_SECONDS = 10.0  # between two lines of the log


def stage(job: "Job") -> None:
    """Have `job.dataset` read from the copies in the folder that data.stage names, once they are complete on all nodes.

    Collective; a safe point again and again, so that a stop waits for nothing. Without data.stage it does nothing.
    Raises InputError where a node has no such folder, no room in it, or fails to copy. Its time is booked as staging.
    """
    wanted, dataset = getattr(job.spec.data, "stage", None), job.dataset
    if not wanted or not isinstance(dataset, ImageShards):
        return
    copying = _Copying(wanted, dataset)
    with job.clock("staging"):
        copying.start()
        _wait(job, copying, len(dataset.tars))
    dataset.read_from(str(copying.target))


def _wait(job: "Job", copying: "_Copying", total: int) -> None:
    said = time.monotonic()
    while True:
        # Whether it works first: what is read after a no is its last word.
        known = job.world.gather((copying.is_alive(), copying.done, copying.problem))
        problem = next((problem for *_, problem in known if problem), None)
        if problem:
            raise InputError(problem)
        done = min(number for _, number, _ in known)
        job.safe_point("staging", done, total)
        if job.world.is_main and time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            print(f"staging: {done}/{total} tars are on every node", flush=True)
        if not any(alive for alive, *_ in known):
            break
        time.sleep(LOOK_SECONDS)
    if done < total:
        reason = f"{done} of {total} tars are on every node, and nobody copies the others"
        raise InputError.of("data.stage", repr(job.spec.data.stage), reason, "start it again, or leave it out")


class _Copying(threading.Thread):
    """One rank of a node copies; the others wait for its lock, and find everything there."""

    def __init__(self, wanted: str, dataset: ImageShards):
        super().__init__(daemon=True)
        self.done, self.problem = 0, ""
        self._wanted, self._dataset = wanted, dataset
        key = hashlib.blake2b(os.fsencode(os.path.realpath(dataset.folder)), digest_size=8).hexdigest()
        self.target = Path(os.path.expandvars(wanted)) / f"sslrun-{os.getuid()}-{key}"

    def run(self) -> None:
        try:
            self._copy_all()
        except NotOurs as error:
            self._refuse(str(error), "or leave it out")
        except OSError as error:
            what = error.strerror or str(error)
            self._refuse(f"{what}: {error.filename or self.target}", "give a folder of the node's own, or leave it out")
        except Exception as error:  # a thread's end is not its job's
            self._refuse(f"{type(error).__name__}: {error}", "start it again, or leave it out")

    def _refuse(self, reason: str, fix: str) -> None:
        host = os.uname().nodename
        self.problem = str(InputError.of("data.stage", repr(self._wanted), f"on {host}: {reason}", fix))

    def _copy_all(self) -> None:
        if not self.target.is_absolute():
            self._refuse("no such variable is set", "give a folder of the node's own, or leave it out")
            return
        own_folder(self.target)
        with open(opened(self.target / "lock", os.O_RDWR | os.O_CREAT), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for leftover in self.target.glob(".*"):  # of one that was killed
                leftover.unlink()
            pairs = [(Path(self._dataset.folder, name), self.target / name) for name in self._dataset.tars]
            missing = [pair for pair in pairs if not _is_copy(*pair)]
            needed = sum(source.stat().st_size for source, _ in missing)
            free = shutil.disk_usage(self.target).free + sum(t.stat().st_size for _, t in missing if t.exists())
            if needed > free:
                reason = f"{needed / 1e9:.1f} GB more are needed, and {free / 1e9:.1f} GB are free"
                self._refuse(reason, "give a larger folder, or leave it out")
                return
            self.done = len(pairs) - len(missing)
            for source, target in missing:
                _copy(source, target)
                self.done += 1


def _is_copy(source: Path, target: Path) -> bool:
    """A copy has its name when it is complete; it has the size and the time of what it was made of, and nobody else can
    have written it."""
    there = source.stat()
    try:
        here = target.lstat()
    except FileNotFoundError:
        return False
    theirs = here.st_uid != os.geteuid() or here.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return (
        stat.S_ISREG(here.st_mode)
        and not theirs
        and (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
    )


def _copy(source: Path, target: Path) -> None:
    """Under its name when what can be read back is what was read. Raises OSError otherwise."""
    status, digest = source.stat(), hashlib.blake2b()
    with open(source, "rb") as here, replacing(target) as there:
        while chunk := here.read(CHUNK):
            digest.update(chunk)
            there.write(chunk)
        there.flush()
        with open(os.dup(there.fileno()), "rb") as copy:
            copy.seek(0)
            if hashlib.file_digest(copy, hashlib.blake2b).digest() != digest.digest():
                raise OSError(None, "the copy differs from the original", str(target))
        os.utime(there.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
