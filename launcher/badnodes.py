"""Nodes that let a run down lately: kept in a list beside the runs, left out of the next submissions, forgotten again.

`<runs>/.bad_nodes.json`: node -> {until, why, run}. It is derived and may be deleted at any time.
"""

import contextlib
import time
from pathlib import Path
from typing import Any

from launcher.rundir import RunDir, read_json, write_json

HOURS = 24.0


def mark(run: RunDir, nodes: list[str], why: str, *, hours: float = HOURS) -> None:
    """Leave `nodes` out of submissions for `hours`. A list that cannot be written is no reason to fail."""
    entry = {"until": time.time() + hours * 3600, "why": why, "run": run.id}
    with contextlib.suppress(OSError):
        write_json(_file(run.path.parent), {**listed(run.path.parent), **dict.fromkeys(nodes, entry)})


def listed(runs: Path) -> dict[str, dict[str, Any]]:
    """Nodes that are left out now."""
    try:
        known = read_json(_file(runs))
    except (OSError, ValueError):
        return {}
    return {node: entry for node, entry in known.items() if entry["until"] > time.time()}


def _file(runs: Path) -> Path:
    return runs / ".bad_nodes.json"
