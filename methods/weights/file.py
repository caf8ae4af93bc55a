"""Weights out of a file that somebody published, into a backbone of ours. Reading one executes no code.

.safetensors; or .pt, .pth and .pth.tar with tensors in plain dictionaries, which torch reads with weights_only=True.
"""

import hashlib
import itertools
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from launcher.errors import InputError
from methods.backbones.export import imported
from methods.weights.spec import WeightsConfig

# What trainers put around a backbone, in front of the names of its parameters.
AROUND = (
    "module.", "model.", "state_dict.", "backbone.", "trunk.", "encoder.", "network.", "teacher.", "student.",
    "_feature_blocks.", "base_encoder.", "encoder_q.", "target_encoder.",
)  # fmt: skip
COUNTER = "num_batches_tracked"  # of batch normalisation; old files lack it, and nothing depends on it here
GLOBAL = re.compile(r"GLOBAL (\S+)")  # in torch's words about something other than a tensor
NAMED = 6  # parameters in a message


def load(backbone: nn.Module, config: WeightsConfig) -> list[str]:
    """Copy the weights of the file into `backbone`, of `methods.backbones.build`, strictly. Returns what was left over,
    by its first names.

    Raises InputError, one line, where the file cannot be read, is not what was asked for when the run was made, holds
    the backbone several times or not wholly, or in other shapes.
    """
    path = Path(config.weights)
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise InputError.of("weights", path, f"cannot be read ({error.strerror})", "restore it") from None
    if digest != config.content:
        raise InputError.of("weights", path, "it has changed since this was asked for", "ask again")
    found = tensors(path, config.key)
    prefix, state = chosen(found, wanted(backbone), str(path))
    try:
        backbone.load_state_dict(imported(state, config.backbone), strict=True)
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError.of(
            "weights", path, f"other shapes than {config.backbone}'s ({reason})", "use its own"
        ) from None
    rest = (name for name in found if name not in {prefix + key for key in state})
    return sorted({".".join(name.split(".")[: 1 + prefix.count(".")]) for name in rest})


def tensors(path: Path, key: str | None = None) -> dict[str, torch.Tensor]:
    """Every tensor of the file; what lies in dictionaries within it under `name.` in front. key: only those of this
    dictionary, or with this beginning. Raises InputError."""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch ends at a damaged file with whatever its parser stumbles over
        raise _unreadable(path, error) from None
    found = dict(_flat(content, "")) if isinstance(content, Mapping) else {}
    if not found:
        raise InputError.of("weights", path, "it holds no tensors under names", "give a state_dict")
    if key is not None:
        inner = {name.removeprefix(f"{key}."): value for name, value in found.items() if name.startswith(f"{key}.")}
        if not inner:
            known = ", ".join(dict.fromkeys(name.partition(".")[0] for name in found))
            raise InputError.of("key", key, f"nothing of {path} is called so", f"it has: {known[:200]}")
        found = inner
    return found


def _unreadable(path: Path, error: Exception) -> InputError:
    """What is wrong with a file that ended reading with `error`; a reader's advice to trust it is left out."""
    more = GLOBAL.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if more:
        reason = f"it holds more than tensors, which could run code ({more[1]})"
        return InputError.of(
            "weights", path, reason, "keep its tensors alone: torch.save({name: tensor}), or safetensors"
        )
    if isinstance(error, OSError):
        return InputError.of(
            "weights", path, f"cannot be read ({error.strerror or error})", "give a whole file of weights"
        )
    with path.open("rb") as stream:
        head = stream.read(2)
    if path.suffix != ".safetensors" and head != b"PK" and head[:1] != b"\x80":  # a zip, or a pickle
        reason = "it is no file of weights"
        return InputError.of("weights", path, reason, "look what it is: a page, or a note where the weights lie?")
    said = str(error).partition("\n")[0].partition(". ")[0]
    if isinstance(error, pickle.UnpicklingError) or not re.search("[a-z]", said):
        said = type(error).__name__
    return InputError.of("weights", path, f"cannot be read ({said[:160]})", "give a whole file of weights")


def wanted(backbone: nn.Module) -> set[str]:
    """The names that the weights of a backbone have where they are published."""
    return {key.removeprefix("trunk.") for key in backbone.state_dict()}


def chosen(found: Mapping[str, torch.Tensor], names: set[str], path: str) -> tuple[str, dict[str, torch.Tensor]]:
    """(what stands before the names, the tensors of `names` without it). Raises InputError unless there is exactly one
    such beginning, made of words that trainers use, behind which all names are."""
    needed = {name for name in names if not name.endswith(COUNTER)}
    first = min(needed)
    starts = sorted(name.removesuffix(first) for name in found if name == first or name.endswith(f".{first}"))
    starts = [start for start in starts if _around(start)]
    whole = [start for start in starts if all(start + name in found for name in needed)]
    if len(whole) > 1:
        reason = f"it holds the backbone {len(whole)} times, under {', '.join(start or 'no name' for start in whole)}"
        raise InputError.of("weights", path, reason, f"say which: key={whole[0].rstrip('.')}")
    if not whole:
        counted = {start: sum(start + name in found for name in needed) for start in [*starts, ""]}
        best = max(counted, key=lambda start: counted[start])
        lacking = sorted(name for name in needed if best + name not in found)
        reason = f"{len(lacking)} of {len(needed)} parameters are not there: {', '.join(lacking[:NAMED])}"
        there = ", ".join(itertools.islice(found, NAMED))
        raise InputError.of("weights", path, reason, f"it holds {there}; give another backbone=NAME or file")
    state = {name: found[whole[0] + name] for name in names if whole[0] + name in found}
    filters = state.get("features.0.weight")
    if filters is not None and filters.shape[1] > 2 and filters[:, 2].any():
        reason = "its first convolution takes colours, ours what Sobel filters give"
        raise InputError.of("weights", path, reason, "give weights that sslrun exported, or another backbone")
    state |= {name: torch.tensor(0) for name in names if name not in state}
    return whole[0], state


def _around(start: str) -> bool:
    while start:
        word = next((word for word in AROUND if start.startswith(word)), None)
        if word is None:
            return False
        start = start.removeprefix(word)
    return True


def _flat(content: Mapping[Any, Any], before: str) -> Any:
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f"{before}{name}", value
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
