"""Which methods there are: folders under `methods/` with a spec.py and a trainer.py, and entry points `sslrun.methods`
elsewhere. A folder with a job.py in place of the trainer is a kind of work that trains nothing, reached through a verb
of its own. Packages elsewhere may have protocols, too: entry points `sslrun.protocols`, which methods/evals/spec.py
puts behind its own."""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import TYPE_CHECKING, Any

from launcher.errors import InputError, unknown
from launcher.spec.contract import Work

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

METHODS, PROTOCOLS = "sslrun.methods", "sslrun.protocols"  # groups of entry points


class ByName(Mapping[str, type[Any]]):
    """Classes that are found in folders, by their `name`. A launch asks for few of many: a folder is imported when one
    of its classes is asked for, which whoever wants to see them all does of all. What there is it knows without."""

    def __init__(self, places: Mapping[str, str], base: type):
        """places: the module of each name; base: of all these classes."""
        self._places, self._base, self._read = places, base, dict[str, type[Any]]()

    def __getitem__(self, name: str) -> type[Any]:
        if name not in self._read:
            there = vars(importlib.import_module(self._places[name])).values()
            ours = (each for each in there if isinstance(each, type) and issubclass(each, self._base))
            self._read[name] = next(each for each in ours if getattr(each, "name", "") == name)
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@cache
def names() -> tuple[str, ...]:
    """Every registered method. Cheap: looks at folders and at the metadata of installed packages, imports nothing."""
    return tuple(sorted({*_folders("trainer.py"), *installed(METHODS)}))


@cache
def jobs() -> tuple[str, ...]:
    """Kinds of work that train nothing."""
    return tuple(sorted(_folders("job.py")))


@cache
def installed(group: str) -> "dict[str, EntryPoint]":
    """What other packages register there. Read once: a plan may ask for every method."""
    if not _any_installed():
        return {}
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=group)}


@cache
def _any_installed() -> bool:
    """Whether a package may register anything here. `importlib.metadata` knows, and takes a twelfth of a plan's time:
    not where all that it would look through are folders, and no list of entry points in them names a group of ours."""
    if any(hasattr(finder, "find_distributions") for finder in sys.meta_path if finder is not PathFinder):
        return True
    for folder in map(os.fsdecode, sys.path):
        if folder.endswith(".egg") or os.path.isfile(folder):
            return True
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.lower().endswith((".dist-info", ".egg-info")) and _names_ours(Path(folder, name)):
                    return True
    return False


def _names_ours(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return b"sslrun." in (folder / "entry_points.txt").read_bytes()
    return False


def loaded(point: "EntryPoint", field: str) -> Any:
    """What an entry point leads to. Raises InputError, of `field`, where its package cannot be imported."""
    try:
        return point.load()
    except Exception as error:  # whatever its files do
        fix = f"install a {point.dist.name} that is made for this sslrun" if point.dist else "mend it"
        raise InputError.of(field, point.name, f"{point.value} cannot be imported: {error}", fix) from None


def _folders(file: str) -> list[str]:
    """Those of methods/ that have a spec and `file`."""
    folder = Path(importlib.util.find_spec("methods").origin).parent  # type: ignore[union-attr, arg-type]
    return [spec.parent.name for spec in folder.glob("*/spec.py") if spec.with_name(file).exists()]


@cache
def method(name: str) -> Work:
    """The method, or other kind of work, called `name`. Raises InputError with the nearest name when there is none, and
    where the package that registers it cannot be imported."""
    if name not in (*names(), *jobs()):
        unknown("method", name, names())
    if point := installed(METHODS).get(name):
        return loaded(point, "method")
    said = facts(name)
    return said.WORK if name in jobs() else said.METHOD


def summary(name: str) -> str:
    """In a line; of a package that cannot be imported, why."""
    try:
        return method(name).summary
    except InputError as error:
        return error.reason


def facts(room: str) -> ModuleType:
    """What `methods/ROOM/spec.py` says without torch: of data sets ("data"), "backbones", protocols ("evals"), ..."""
    return importlib.import_module(f"methods.{room}.spec")


def load_trainer(name: str) -> type:
    """The trainer's class. Imports torch; only the worker calls this."""
    return resolve_name(method(name).trainer)


def load_job(name: str) -> Callable[..., dict[str, Any]]:
    """What the ranks run where nothing is trained, called as `work(run, world, ledger, stop, heart)`. Imports torch."""
    return resolve_name(method(name).entry)
