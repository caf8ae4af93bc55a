"""Whether rank 0's machine can hold what k-NN gathers there: bytes count, not images."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import InputError
from methods.data.dataset import ImageDataset
from methods.engine.job import Job

# Times that a machine may hold the features at once, where all ranks are on it: in the ranks' blocks, padded to be
# sent, as they arrive, and joined. A search holds them less often.
COPIES = 4
# Bytes. CIFAR in full resolution is 0.7 GB. ImageNet at 224 pixels would be 800 GB, and hours of searching, for a
# baseline of a few percent.
LARGEST_PIXELS = 8e9
GB = 1e9
CGROUPS, MINE = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def too_large(job: Job, width: int, copies: int = COPIES) -> str:
    """Why rank 0 cannot gather and search rows of `width` float32 of all labelled images; empty where it can. copies:
    times that its machine comes to hold them. Collective: rank 0's machine counts."""
    needed = _bytes(job.labelled, width)
    there = job.world.broadcast(memory() if job.world.is_main else 0)
    if copies * needed <= there:
        return ""
    takes = f"{needed / GB:,.3g} GB of features on one rank, which takes {copies} times that"
    return f"it gathers {takes}, and its machine has {there / GB:,.3g} GB of memory"


def pixels_too_large(job: Job) -> str:
    """As `too_large`, of the images' own pixels. Collective."""
    width = job.labelled[0].channels * job.config.image_size**2
    needed = _bytes(job.labelled, width)
    if needed > LARGEST_PIXELS:
        return f"they are {needed / GB:,.3g} GB, over {LARGEST_PIXELS / GB:,.3g} GB"
    return too_large(job, width)


def refuse_too_large(job: Job, protocol: str, width: int, copies: int = COPIES) -> None:
    """Raises InputError, on all ranks, where `protocol` cannot gather rows of `width` float32. Collective."""
    reason = too_large(job, width, copies)
    if reason:
        others = "" if job.labelled[0].labels is None else "linear or logistic, "
        fix = f"use {others}eval_data with fewer images, or a machine with more memory"
        raise InputError.of("protocol", protocol, reason, fix)


def memory() -> int:
    """Bytes that the processes of this job on this machine may fill together: the machine's, or less where a control
    group that they are in has a limit, as Slurm's jobs and containers do."""
    least = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError):
        for line in MINE.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = CGROUPS / "memory" if controllers else CGROUPS
            inside = Path(path.lstrip("/"))
            for folder in (inside, *inside.parents):
                with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
                    name = "memory.limit_in_bytes" if controllers else "memory.max"
                    least = min(least, int((root / folder / name).read_text()))
    return least


def _bytes(splits: Sequence[ImageDataset], width: int) -> int:
    return 4 * width * sum(len(dataset) for dataset in splits)
