"""Values of `cluster.environment`, which may be keys and passwords: kept where the run's owner alone reads them.

    <run>/spec.json, placement.json    {"environment": {"WANDB_API_KEY": "kept-apart-0f3c..."}, ...}, for its group, too
    <run>/private.json                 {"kept-apart-0f3c...": "the key"}, for its owner

Nothing is ever taken out of private.json, so that a placement which is put back finds what it means.
"""

import contextlib
import dataclasses
import json
import os
import secrets
from pathlib import Path
from typing import Any

from launcher.errors import InputError
from launcher.run.files import read_json, replacing
from launcher.spec.runspec import APART, RunSpec, freeze
from launcher.spec.schema import ClusterConfig

FILE = "private.json"


def apart(run: Path, spec: RunSpec) -> RunSpec:
    """`spec` as a file that others read may hold it; the values go into the private file of the folder `run`."""
    kept = {}
    for name, value in spec.cluster.environment.items():
        if not value.startswith(APART):
            kept[name] = f"{APART}{secrets.token_hex(8)}"
    if not kept:
        return spec
    known = {**_known(run), **{word: spec.cluster.environment[name] for name, word in kept.items()}}
    with replacing(run / FILE, mode=0o600) as file:
        file.write(json.dumps(known, indent=1).encode())
    return _with(spec, {**spec.cluster.environment, **kept})


def together(run: Path, spec: RunSpec) -> RunSpec:
    """`spec` with its values, where the private file can be read: for anybody but the owner it stays as it is."""
    environment = spec.cluster.environment
    if not any(value.startswith(APART) for value in environment.values()):
        return spec
    known = _known(run)
    return _with(spec, {name: str(known.get(value, value)) for name, value in environment.items()})


def refuse_lost(run: Path, spec: RunSpec) -> None:
    """Raises InputError where a value is nowhere to be found any more: ranks would be told a word in its place."""
    for name, value in spec.cluster.environment.items():
        if value.startswith(APART):
            field = f"cluster.environment.{name}"
            fix = f"give it again: `sslrun resume RUN {field}=VALUE`"
            raise InputError(f"{field}: its value is not in {run / FILE}; {fix}")


def _known(run: Path) -> dict[str, Any]:
    """Raises OSError, or NotOurs, where the user's own cannot be read: what is written anew would lose its keys."""
    with contextlib.suppress(FileNotFoundError):
        if run.stat().st_uid == os.geteuid():
            return read_json(run / FILE)
    return {}


def _with(spec: RunSpec, environment: dict[str, str]) -> RunSpec:
    cluster = ClusterConfig(**{**dataclasses.asdict(spec.cluster), "environment": environment})
    return dataclasses.replace(spec, cluster=freeze(cluster))
