"""A checkpoint's manifest: what its files must be. Read without torch, by the job and by the verbs.

manifest.json    step, steps, generation, files {name: {size, sha256}}, digest
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.run import waiting
from launcher.run.files import opened
from launcher.run.shapes import MANIFEST

STEP = re.compile(r"step_\d{8}")  # a checkpoint's name


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
            if sha256(path / name) != entry["sha256"]:
                return f"{name} is not what was written"
        if manifest["digest"] != digest(manifest["files"]):
            return "the manifest contradicts itself"
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and not waiting.answered(error):
            raise
        return f"{type(error).__name__}: {error}"
    return ""


def digest(files: Mapping[str, Any]) -> str:
    """One hash over all registered state: of the files' hashes, by name."""
    return hashlib.sha256(json.dumps({n: e["sha256"] for n, e in sorted(files.items())}).encode()).hexdigest()


def sha256(path: Path) -> str:
    with open(opened(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
