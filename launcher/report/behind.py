"""The runs that a run waits for, in words."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from launcher.errors import SslrunError
from launcher.run.folder import RunDir
from launcher.run.state import ACTIVE
from launcher.start import stages

Facts = Mapping[str, Any]


def of_ledger(run: RunDir) -> Facts:
    """What is known of a run where nobody asks the queue."""
    return run.summary(digest=False)


def standing(run: RunDir, facts_of: Callable[[RunDir], Facts] = of_ledger) -> list[dict[str, Any]]:
    """Which runs `run`, which has not begun, waits for, and where each stands: {run, state, step}. facts_of: what is
    known of such a run."""
    found = []
    with contextlib.suppress(SslrunError, OSError, ValueError, KeyError):  # damaged: it is told of where it is read
        for each in stages.of_run(run):
            facts = facts_of(each.run)
            if facts["state"] != "done":
                found.append({"run": each.run.id, "state": facts["state"], "step": facts["step"]})
    return found


def cell(waits_for: list[Facts]) -> str:
    """For a table: the first of them, and how many there are besides."""
    more = f", {len(waits_for) - 1} more" if len(waits_for) > 1 else ""
    return f"{waits_for[0]['run']} ({waits_for[0]['state']}){more}" if waits_for else ""


def in_words(waits_for: list[Facts], where: str) -> str:
    """Each of them, and what to type where nobody runs it. where: what a command needs to find a run from here."""
    said = []
    for each in waits_for:
        stands = f"{each['run']} ({each['state']} at step {each['step']})"
        resume = f": `sslrun resume {each['run']}{where}` starts both"
        said.append(stands if each["state"] in ACTIVE else stands + resume)
    return "; ".join(said)


def idle(waits_for: list[Facts]) -> list[Facts]:
    """Those of them that nobody runs."""
    return [each for each in waits_for if each["state"] not in ACTIVE]
