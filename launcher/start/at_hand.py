"""Whether the machine at hand has room for a run, before the run is made: a step that needs more memory than there is
ends in the kernel's kill, or in a machine that nobody can use for an hour."""

import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from launcher.errors import InputError
from launcher.plan.plan import Plan
from launcher.run.question import agreed
from launcher.spec.planned import Planned
from launcher.spec.runspec import RunSpec

LONG_HOURS = 24.0  # a run on the machine at hand that takes longer may be meant for a cluster
LIMITS = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def memory_gb() -> float:
    """What this machine has, or its container may take."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # "max", and the one of another version of cgroups
            found = min(found, int(limit.read_text()))
    return found / 1e9


def check(planned: Iterable[tuple[RunSpec, Planned]], *, anyway: bool) -> list[str]:
    """What should be said of runs that this machine is to do one after the other, none of which is made yet. Raises
    InputError where one needs more memory, as modelled, than there is, unless `anyway`; on a terminal the person is
    asked."""
    here = [plan for spec, plan in planned if spec.cluster.kind == "local" and isinstance(plan, Plan)]
    if not here:
        return []
    there, largest = memory_gb(), max(here, key=_needed)
    if _needed(largest) > there and not anyway:
        takes = f"a step of {largest.run} is modelled to take {_needed(largest):.0f}"
        error = InputError.of(
            "cluster", "local", f"this machine has {there:.0f} GB of memory, and {takes}", _fix(largest)
        )
        if not sys.stdin.isatty():
            raise error
        if not agreed(f"{error}. Start it all the same?"):
            raise InputError("not started")
    hours = sum(plan.hours for plan in here)
    if hours <= LONG_HOURS:
        return []
    assumed = " at an assumed rate" if any(plan.hours_assumed for plan in here) else ""
    return [f"this takes about {hours / 24:,.1f} days on this machine{assumed}; recipe=demo takes minutes"]


def _needed(plan: Plan) -> float:
    """GB of this machine's memory; whether GPUs have enough of theirs is said by the plan."""
    return 0.0 if plan.gpus_per_node else plan.memory_gb * plan.world_size


def _fix(plan: Plan) -> str:
    smaller = f"a smaller method.image_size, method.backbone or method.global_batch than {plan.global_batch}"
    return f"give {smaller}, recipe=demo, or a cluster; or add --anyway"
