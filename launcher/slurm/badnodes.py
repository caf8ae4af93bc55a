"""Nodes that let a run down lately: kept in a list beside the runs, left out of the next submissions, forgotten again.

`<runs>/.bad_nodes.json`: node -> {until, why, run}. It is derived and may be deleted at any time.
"""

import contextlib
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from launcher.plan import worlds
from launcher.run.files import read_json, write_json
from launcher.run.folder import RunDir
from launcher.run.shapes import BAD_NODE
from launcher.slurm import limits
from launcher.spec.runspec import RunSpec

HOURS = 24.0


def mark(run: RunDir, nodes: Sequence[str], why: str, *, hours: float = HOURS) -> None:
    """Leave `nodes` out of submissions for `hours`. A list that cannot be written is no reason to fail."""
    entry = {"until": time.time() + hours * 3600, "why": why, "run": run.id}
    with contextlib.suppress(OSError):
        write_json(_file(run.runs), {**listed(run.runs), **dict.fromkeys(nodes, entry)})


def forgive(runs: Path, why: str) -> None:
    """Take nodes from the list that are there for what begins so: it was not theirs."""
    known = listed(runs)
    with contextlib.suppress(OSError):
        write_json(_file(runs), {node: entry for node, entry in known.items() if not entry["why"].startswith(why)})


def listed(runs: Path) -> dict[str, dict[str, Any]]:
    """Nodes that are left out now; none where the list is missing or damaged."""
    try:
        known = read_json(_file(runs)).items()
    except (OSError, ValueError):
        return {}
    return {node: entry for node, entry in known if BAD_NODE(entry) and entry["until"] > time.time()}


def choose(
    runs: Path, usable: Collection[str], needed: int, also: Mapping[str, str] = MappingProxyType({})
) -> tuple[list[str], str]:
    """(nodes to leave out of a submission, what to tell a person about it).

    usable: nodes that the job could get; also: {node: why} beside those that are listed. Where fewer than `needed`
    would remain, all are used and the person is told.
    """
    until = time.time() + HOURS * 3600
    known = {node: {"until": until, "why": why} for node, why in also.items()} | listed(runs)
    bad = {node: entry for node, entry in known.items() if node in usable}
    if not bad:
        return [], ""
    said = "; ".join(f"{node} ({entry['why']})" for node, entry in sorted(bad.items()))
    if len(usable) - len(bad) < needed:
        return [], f"used all the same, because too few other nodes are left: {said}"
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(max(entry["until"] for entry in bad.values())))
    return sorted(bad), f"left out until {until}: {said}; remove {_file(runs)} to use them again"


def excluded(spec: RunSpec, also: Mapping[str, str] = MappingProxyType({})) -> tuple[list[str], str]:
    """(nodes that a job of `spec` is not to get, what to tell a person about those that let a run down).

    also: {node: why} of those that let this very job down. Raises ClusterError.
    """
    runs = Path(spec.runs)
    if not (also or listed(runs)):
        return [], ""
    nodes, note = choose(runs, {n.name for n in limits.usable(spec)}, worlds.asked(spec)[0], also)
    mine = [spec.cluster.exclude] if spec.cluster.exclude else []
    return [*mine, *nodes] if nodes else [], note and f"nodes {note}"


def _file(runs: Path) -> Path:
    return runs / ".bad_nodes.json"
