"""The reader of spec.json: a RunSpec as it was frozen, however long ago."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from launcher.spec import registry
from launcher.spec.fields import pinned_fields
from launcher.spec.runspec import FORMAT, ContinueFrom, InitFrom, PinnedNetwork, RunSpec, checksum, freeze
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
    fields["eval_after"] = tuple(fields.get("eval_after", ()))
    method = registry.method(fields["method"]["name"]).config(**fields["method"])
    for name in pinned_fields(method):
        given = getattr(method, name)
        setattr(method, name, given and PinnedNetwork(**given))
    fields["method"] = freeze(method)
    for key in ("data", "eval_data"):
        fields[key] = fields[key] and freeze(DATA[fields[key]["name"]](**fields[key]))
    cluster = {RENAMED.get(name, name): value for name, value in fields["cluster"].items()}
    fields["cluster"] = freeze(ClusterConfig(**cluster))
    fields["init_from"] = fields["init_from"] and InitFrom(**fields["init_from"])
    continued = fields.get("continue_from")
    fields["continue_from"] = continued and ContinueFrom(**continued)
    return RunSpec(**fields)
