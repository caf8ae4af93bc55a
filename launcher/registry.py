"""Which methods there are: folders under `methods/` with a trainer.py, and entry points `sslrun.methods` elsewhere. A
folder with a job.py in its place is a kind of job that trains nothing, and is reached through a verb of its own."""

import difflib
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

from launcher.errors import InputError
from launcher.spec import Recipe, TrainConfig


@dataclass(frozen=True)
class Layout:
    """How a global batch lies on a world. `why` holds one sentence a number."""

    per_gpu_batch: int  # images a forward pass
    accumulation: int  # forward passes an optimiser step
    groups: int  # communication groups (DeeperCluster: 4m); 1 where a method has none
    group_size: int  # ranks that share one group
    groups_per_rank: int  # groups that one rank hosts
    batch_norm_ranks: int  # ranks that share batch statistics
    why: Mapping[str, str]
    waste: str | None = None  # said when the layout is legal but wasteful
    variant: tuple[str, ...] = ()  # the overrides that would mend it, with a new identity


@dataclass(frozen=True)
class Clustering:
    """k-means of the features of all images: into k clusters each of m parts, which go on together."""

    k: int
    d: int
    iterations: int
    m: int = 1


@dataclass(frozen=True)
class Rounds:
    """What a method does over all images between epochs: features, then k-means of them."""

    count: int  # in a whole run
    forward_flops: float  # an image, for its feature
    clusterings: tuple["Clustering", ...]  # one after the other
    host_bytes: float  # an image, in host memory until the round ends


@dataclass(frozen=True)
class Sizes:
    """What the cost models need to know of a network. Counts of fp32 scalars and floating-point operations."""

    parameters: int  # replicated on every rank
    sharded_parameters: int  # over the whole world, each stored once
    hosted_parameters: int  # of those, what one rank holds
    optimiser_slots: int  # scalars the optimiser keeps for each parameter
    flops_per_image: float  # forward and backward
    activations: float  # bytes an image in fp32, of which bf16 and fp16 take half
    why: Mapping[str, str]
    rounds: Rounds | None = None  # where the method has any
    following_parameters: int = 0  # replicated, but without gradients or slots: a teacher, or a momentum encoder
    remembered: int = 0  # of earlier batches, over the whole world: a queue, or a cache of features
    unhalved: float = 0.0  # bytes an image beside the activations, in any precision: pixels, scores, LayerNorm's input


@dataclass(frozen=True)
class Method:
    """The launcher's whole view of a method. `trainer` is loaded by the worker alone, inside a job."""

    name: str
    summary: str
    config: type[TrainConfig]
    recipes: Mapping[str, Callable[[], Recipe]]
    trainer: str  # "package.module:Class"
    validate: Callable[[Any, int | None], None]  # (config, number of images if known); raises InputError
    layout: Callable[[Any, int], Layout]  # (config, world_size); raises InputError with the sizes that work
    sizes: Callable[[Any, int], Sizes]  # (config, world_size)
    job: str = ""  # "package.module:function" that the ranks run in place of training, where they do

    def recipe(self, name: str) -> Recipe:
        if name not in self.recipes:
            unknown("recipe", name, self.recipes)
        return self.recipes[name]()


@cache
def names() -> tuple[str, ...]:
    """Every registered method. Cheap: looks at folders and at the metadata of installed packages, imports nothing."""
    folder = Path(importlib.util.find_spec("methods").origin).parent  # type: ignore[union-attr, arg-type]
    here = [p.parent.name for p in folder.glob("*/trainer.py")]
    return tuple(sorted({*here, *(point.name for point in entry_points(group="sslrun.methods"))}))


@cache
def jobs() -> tuple[str, ...]:
    """Kinds of job that train nothing."""
    folder = Path(importlib.util.find_spec("methods").origin).parent  # type: ignore[union-attr, arg-type]
    return tuple(sorted(p.parent.name for p in folder.glob("*/job.py")))


@cache
def method(name: str) -> Method:
    """The method called `name`. Raises InputError with the nearest name when there is none."""
    if name not in (*names(), *jobs()):
        unknown("method", name, names())
    for point in entry_points(group="sslrun.methods"):
        if point.name == name:
            return point.load()
    return importlib.import_module(f"methods.{name}.spec").METHOD


def load_trainer(name: str) -> type:
    """The trainer's class. Imports torch; only the worker calls this."""
    return _load(method(name).trainer)


def load_job(name: str) -> Callable[..., dict[str, Any]]:
    """What the ranks of such a job run; called as `work(run, world, ledger, stop, heart)`. As `load_trainer`."""
    return _load(method(name).job)


def _load(reference: str) -> Any:
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def unknown(field: str, value: str, known: Iterable[str], *, what: str = "name") -> NoReturn:
    """Refuse an unknown name (the value) or key (the field) with the nearest known one."""
    known = sorted(known)
    near = difflib.get_close_matches(field if what == "key" else str(value), known, n=1, cutoff=0.5)
    listed = ", ".join(known)
    raise InputError.of(
        field, value, f"there is no such {what}", f"did you mean {near[0]}?" if near else f"known: {listed}"
    )
