"""The tensors of a file of weights, under their names. Reading one runs no code of its and imports nothing that it
names: torch reads with weights_only=True, and what is pickled beside the tensors, such as a trainer's arguments, comes
as an empty thing of ours, or the file is refused."""

import io
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from launcher.errors import InputError
from launcher.run import waiting
from methods.backbones.python2 import renumbered

GLOBAL = re.compile(r"GLOBAL (\S+)")  # in torch's words about something other than a tensor
# Whose objects are settings and records, which trainers save beside their weights. What is none of these is not skipped
# but refused: then the weights themselves may be inside, or somebody means harm.
SETTINGS = frozenset((
    "argparse", "pathlib", "datetime", "typing", "numpy", "omegaconf", "easydict", "yacs", "addict", "munch",
    "mmcv", "mmengine", "pytorch_lightning", "lightning", "lightning_fabric", "classy_vision", "vissl",
    "fvcore", "solo", "lightly",
))  # fmt: skip
SETTINGS_TOO = ("collections.defaultdict", "collections.deque", "types.SimpleNamespace", "torch.optim.")
# Built-in ones, as values.
TYPES = frozenset(("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object", "str", "tuple", "type"))
UNSUPPORTED = {  # torch's words -> ours
    "TorchScript": "it is a TorchScript archive, which is code",
    "Unsupported operand": "it is damaged, or was pickled in another protocol than torch's",
}
TEXT = re.compile(r"Unsupported operand 73\b")  # torch's words about a number that Python 2 wrote as text
MANY = 200  # names of things beside tensors, more than any trainer saves


class Skipped:
    """Stands for an object that is not a tensor: takes whatever it is made of, and keeps none of it."""

    def __new__(cls, *_: Any, **__: Any) -> "Skipped":
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        pass


class SkippedMapping:
    """Stands for a mapping of another class: comes as an ordered dictionary, which torch lets the file fill."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return OrderedDict()


class SkippedList:
    """Stands for a sequence of another class, as `SkippedMapping` does."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return []


def tensors(path: Path, field: str) -> dict[str, torch.Tensor]:
    """Every tensor of the file on the CPU; what lies in dictionaries within it under `name.` in front.

    .safetensors, or what torch.save wrote in either of its formats. Raises InputError about `field` for any other file,
    and OSError for one that cannot be opened now, though it is there (run/waiting.py).
    """
    try:
        with path.open("rb"):  # what reads it may call one that cannot be opened damaged, or missing
            pass
    except OSError as error:
        if not waiting.answered(error):
            raise
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _unpickled(path)
    except Exception as error:  # torch ends at a damaged file with whatever its parser stumbles over
        raise _unreadable(path, error, field) from None
    found = dict(_flat(content, "", frozenset())) if isinstance(content, Mapping) else {}
    if not found:
        raise InputError.of(field, path, "it holds no tensors under names", "give a state_dict")
    return found


def _unpickled(path: Path) -> Any:
    with path.open("rb") as stream:
        mapped = stream.read(4) == b"PK\x03\x04"  # else in torch's older format, which can only be read
    file: Path | io.BytesIO = path
    stand_ins: dict[str, type] = {}
    while True:
        try:
            if isinstance(file, io.BytesIO):
                file.seek(0)
            safe = torch.serialization.safe_globals([(kind, name) for name, kind in stand_ins.items()])
            with safe, warnings.catch_warnings(action="ignore"):  # what is wrong is said below, in one line
                return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            if TEXT.search(str(error)) and file is path and not mapped:
                file = renumbered(path)
                continue
            named = GLOBAL.search(str(error))
            if not named:
                raise
            # torch leaves out where built-in names come from.
            name = named[1] if "." in named[1] else f"builtins.{named[1]}"
            if name in stand_ins or len(stand_ins) == MANY or not _is_settings(name):
                raise
            stand_ins[name] = _stand_in(name)


def _is_settings(name: str) -> bool:
    room, _, last = name.partition(".")
    return room in SETTINGS or name.startswith(SETTINGS_TOO) or (room == "builtins" and last in TYPES)


def _stand_in(name: str) -> type:
    last = name.rpartition(".")[2]
    if last.lower().endswith("dict") and not name.startswith("builtins."):
        return SkippedMapping
    return {"CfgNode": SkippedMapping, "Munch": SkippedMapping, "deque": SkippedList}.get(last, Skipped)


def _flat(content: Mapping[Any, Any], before: str, within: frozenset[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """within: the dictionaries around it, since a file may have one hold itself."""
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f"{before}{name}", value
        elif isinstance(value, Mapping) and id(value) not in within:
            yield from _flat(value, f"{before}{name}.", within | {id(value)})


def _unreadable(path: Path, error: Exception, field: str) -> InputError:
    """What is wrong with a file that ended reading with `error`; a reader's advice to trust it is left out."""
    more = GLOBAL.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if more:
        reason = f"it holds more than tensors, which could run code ({more[1]})"
        return InputError.of(field, path, reason, "keep its tensors alone: torch.save({name: tensor}), or safetensors")
    if isinstance(error, OSError):
        return InputError.of(field, path, f"cannot be read ({error.strerror or error})", "give a whole file of weights")
    with path.open("rb") as stream:
        head = stream.read(2)
    if path.suffix != ".safetensors" and head != b"PK" and head[:1] != b"\x80":  # a zip, or a pickle
        reason = "it is no file of weights"
        return InputError.of(field, path, reason, "look what it is: a page, or a note where the weights lie?")
    for words, reason in UNSUPPORTED.items():
        if words in str(error):
            return InputError.of(field, path, reason, "save its tensors alone: torch.save({name: tensor})")
    said = str(error).partition("\n")[0].partition(". ")[0]
    if isinstance(error, pickle.UnpicklingError) or not re.search("[a-z]", said):
        said = type(error).__name__
    return InputError.of(field, path, f"cannot be read ({said[:160]})", "give a whole file of weights")
