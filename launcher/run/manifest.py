"""A checkpoint's manifest: what its files must be. Read without torch, by the job and by the verbs.

manifest.json    step, steps, generation, files {name: {size, xxh3}}, digest

xxh3 is XXH3-128, made to find what a disk or a network changed, at the speed of memory; who means to can make two files
of one sum. Checkpoints of earlier versions have sha256 in its place, and are read and verified by that. Whoever can
change a checkpoint can change its manifest, too, so that a sum here speaks of accidents, whichever it is.
https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from launcher.run import waiting
from launcher.run.files import opened
from launcher.run.shapes import MANIFEST

STEP = re.compile(r"step_\d{8}")  # a checkpoint's name
SUMS = {"xxh3": xxhash.xxh3_128, "sha256": hashlib.sha256}  # what an entry of a file may have, the usual one first


def read(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint at `path`. Raises NotOurs where it is none, OSError where it cannot be read."""
    return MANIFEST.read(path / "manifest.json")


def verify(path: Path) -> str:
    """Why the checkpoint at `path` cannot be used; empty when every file is as its manifest says. Reads every byte.

    Raises OSError where something cannot be read, which says nothing of what it holds (run/waiting.py).
    """
    try:
        manifest = read(path)
        if path.name != f"step_{manifest['step']:08d}":
            return f"the manifest is that of step {manifest['step']}"
        for name, entry in manifest["files"].items():  # first what costs nothing
            size = (path / name).stat().st_size
            if size != entry["size"]:
                return f"{name} has {size:,} bytes, not {entry['size']:,}"
        for name, entry in manifest["files"].items():
            if checked(path / name, entry) != entry:
                return f"{name} is not what was written"
        if manifest["digest"] != digest(manifest["files"]):
            return "the manifest contradicts itself"
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not waiting.answered(error):
            raise
        return f"{type(error).__name__}: {error}"
    return ""


def digest(files: Mapping[str, Any]) -> str:
    """One hash over all registered state: of the files' sums, by name. Equal state, saved by one version of sslrun, has
    an equal digest, and no other has it by accident; versions whose manifests have other sums cannot be compared."""
    sums = {name: files[name][_kind(files[name])] for name in sorted(files)}
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def checked(path: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """`entry` with the sum, of the kind that it has, of what the file at `path` holds. Raises NotOurs, OSError."""
    kind = _kind(entry)
    with open(opened(path), "rb") as file:
        return {**entry, kind: hashlib.file_digest(file, SUMS[kind]).hexdigest()}


def sha256(path: Path) -> str:
    """Of a file that others may change and whose digest is frozen in a spec. Raises NotOurs, OSError."""
    return str(checked(path, {"sha256": ""})["sha256"])


def _kind(entry: Mapping[str, Any]) -> str:
    return next(kind for kind in SUMS if kind in entry)
