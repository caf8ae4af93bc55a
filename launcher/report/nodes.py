"""What a run's nodes came to, in words: how many of a range it has, and what those in reserve brought."""

from collections.abc import Mapping
from typing import Any


def fewer(facts: Mapping[str, Any]) -> str:
    """Of a run whose latest start has fewer nodes than are asked for at the most: "2 of 2-4"; else empty."""
    granted, asked = facts["granted_nodes"], facts["asked_nodes"]
    return f"{granted} of {asked}" if granted and granted < int(asked.rpartition("-")[2] or 0) else ""


def spares(found: Mapping[str, Any]) -> str:
    """What nodes in reserve brought, beside what they cost (run/goodput.py)."""
    count, seconds = found["restarts"], ["?" if s is None else f"{s:.0f} s" for s in found["went_on_after_s"]]
    brought = f"{count} restart{'' if count == 1 else 's'} on one"
    after = f", going on {', '.join(seconds)} after the end" if seconds else ""
    gpus = f", {found['idle_gpu_hours']:.1f} GPU-hours" if found["idle_gpu_hours"] else ""
    return f"{brought}{after}; idle for {found['idle_node_hours']:.2f} node-hours{gpus}"
