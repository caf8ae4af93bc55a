"""The reader of spec.json: a RunSpec as it was frozen, however long ago."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from launcher.spec import registry
from launcher.spec.fields import check_types, pinned_fields
from launcher.spec.runspec import (
    FORMAT,
    ContinueFrom,
    FromRun,
    InitFrom,
    NetworkFromRun,
    PinnedNetwork,
    RunSpec,
    checksum,
    freeze,
    frozen,
)
from launcher.spec.schema import ClusterConfig

DATA = registry.facts("data").DATA

RENAMED = {"time_limit_minutes": "timeout_min"}  # fields of clusters in specs that were frozen long ago


def read(stored: Mapping[str, Any]) -> RunSpec:
    """The spec that was frozen at submission. Raises ValueError when it was edited or comes from a newer sslrun."""
    if stored.get("format", 0) > FORMAT:
        raise ValueError(f"spec.json has format {stored['format']}, this sslrun reads up to {FORMAT}; upgrade sslrun")
    # Over what was written, not the identity worked out anew: a later sslrun may know more fields.
    if stored["checksum"] != checksum({key: value for key, value in stored.items() if key != "checksum"}):
        raise ValueError("its checksum does not fit: it was edited after the run was submitted")
    fields = {f.name: stored[f.name] for f in dataclasses.fields(RunSpec) if f.name in stored}
    after = fields.get("eval_after", ())
    fields["eval_after"] = tuple(after) if isinstance(after, list) else after
    if "probes" in fields:
        fields["probes"] = frozen(fields["probes"])
    method = registry.method(fields["method"]["name"]).config(**fields["method"])
    for name in pinned_fields(method):
        given = getattr(method, name)
        kind = NetworkFromRun if given and "identity" in given else PinnedNetwork
        setattr(method, name, given and _checked(kind(**given), f"method.{name}."))
    fields["method"] = freeze(_checked(method, "method."))
    for key in ("data", "eval_data"):
        fields[key] = fields[key] and freeze(_checked(DATA[fields[key]["name"]](**fields[key]), f"{key}."))
    cluster = {RENAMED.get(name, name): value for name, value in fields["cluster"].items()}
    fields["cluster"] = freeze(_checked(ClusterConfig(**cluster), "cluster."))
    start = FromRun if "identity" in (fields.get("init_from") or ()) else InitFrom
    for key, kind in (("init_from", start), ("continue_from", ContinueFrom)):
        fields[key] = fields.get(key) and _checked(kind(**fields[key]), f"{key}.")
    spec = RunSpec(**fields)
    spec.check()
    return spec


def _checked(config: Any, prefix: str = "") -> Any:
    check_types(config, prefix)
    return config
