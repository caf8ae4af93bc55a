"""The frozen, hashed spec of a run, which everything after composing reads.

A schema (schema.py) is a plain mutable dataclass, because OmegaConf needs one; `freeze` makes it immutable, and from
then on nothing changes: what was resolved at submission is what runs.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from launcher.spec.fields import check_types
from launcher.spec.schema import ClusterConfig

FORMAT = 3  # of spec.json; a reader refuses a newer one
KEPT_APART = 2  # what is written where nothing is taken from a run
BEFORE = 1  # and nothing is kept apart, either: a reader of long ago knows it, too
APART = "kept-apart-"  # begins the word in the place of a value of `cluster.environment`; see run/private.py
MASK = "***"


class FrozenDict(dict):
    """A dict that nobody changes: json and dataclasses.asdict take it for what it is."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise dataclasses.FrozenInstanceError("a spec never changes")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse


PROBES = FrozenDict(knn=FrozenDict())  # that nobody asked for


@dataclass(frozen=True)
class InitFrom:
    """Weights that a run starts from, known by their content: a file, or, in runs of long ago, a checkpoint. The path
    may move, the digest may not."""

    path: str
    digest: str

    @property
    def science(self) -> str:
        """What counts to the identity."""
        return self.digest


@dataclass(frozen=True)
class FromRun:
    """What another run has trained, or will have: its folder, its identity, and the step of the checkpoint; None: its
    last, once it is done. Which bytes these are, a start notes in the ledger (run/pins.py)."""

    path: str
    identity: str
    step: int | None

    @property
    def science(self) -> list[str | int]:
        """What counts to the identity: the same before and after that run has ended."""
        return [self.identity, "end" if self.step is None else self.step]


@dataclass(frozen=True)
class PinnedNetwork(InitFrom):
    """A second network that a method uses as it is, and the name of its backbone: what a `pinned()` field holds once it
    is composed, where somebody named a file."""

    backbone: str


@dataclass(frozen=True)
class NetworkFromRun(FromRun):
    """As PinnedNetwork, where somebody named a run."""

    backbone: str


@dataclass(frozen=True)
class ContinueFrom(InitFrom):
    """The last checkpoint of the finished run `run`, which was trained for so many `epochs`, until `step`: all of its
    state is where a run that trains it longer begins."""

    run: str
    step: int
    epochs: int


@dataclass(frozen=True)
class RunSpec:
    """One run, resolved. Immutable all the way down; `identity` is what makes two submissions the same run."""

    method: Any
    data: Any
    eval_data: Any
    cluster: Any
    recipe: str
    nodes: int
    tasks_per_node: int
    seed: int
    init_from: InitFrom | FromRun | None
    runs: str
    group: str | None = None
    eval_after: tuple[str, ...] = ()
    continue_from: ContinueFrom | None = None
    least_nodes: int | None = None  # it takes any count from here to `nodes`; None: `nodes` and no other
    # What judges it between its steps: {protocol: its settings that were given, and `eval_every` in epochs}.
    probes: dict[str, dict[str, Any]] = field(default_factory=lambda: PROBES)

    @property
    def world_size(self) -> int:
        """The largest, where it takes a range of nodes."""
        return self.nodes * self.tasks_per_node

    @property
    def asked_nodes(self) -> str:
        """As a person types them: 8, or 4-8."""
        return str(self.nodes) if self.least_nodes is None else f"{self.least_nodes}-{self.nodes}"

    def on(self, nodes: int) -> "RunSpec":
        """The same run on so many nodes and no other count."""
        return dataclasses.replace(self, nodes=nodes, least_nodes=None)

    def without_spares(self) -> "RunSpec":
        """The same run with no node in reserve."""
        return dataclasses.replace(self, cluster=freeze(self.cluster_but(spare_nodes=0)))

    def cluster_but(self, **given: Any) -> ClusterConfig:
        """Its cluster with other values `given`, not yet frozen."""
        return ClusterConfig(**{**self._fields()["cluster"], **given})

    @property
    def sources(self) -> dict[str, InitFrom | FromRun]:
        """What it takes from runs and files, by the field that names each: init_from, continue_from, method.FIELD."""
        named = {"init_from": self.init_from, "continue_from": self.continue_from}
        named |= {f"method.{field.name}": getattr(self.method, field.name) for field in dataclasses.fields(self.method)}
        return {name: source for name, source in named.items() if isinstance(source, InitFrom | FromRun)}

    @property
    def protocols(self) -> tuple[str, ...]:
        """Those that judge it as it trains, that follow its end, or that a file of weights is to be judged by."""
        return (*self.probes, *self.eval_after, *getattr(self.method, "settings", ()))

    @property
    def science(self) -> dict:
        """What changes the result: method, data, backbone, batch, schedule, seed; not where it runs."""
        science = {
            "method": _science(self.method),
            "data": self.data and _science(self.data),
            "seed": self.seed,
            "init_from": self.init_from.science if self.init_from else None,
        }
        return science | ({"continue_from": self.continue_from.digest} if self.continue_from else {})

    @property
    def identity(self) -> str:
        """sha256 over the science."""
        return hashlib.sha256(json.dumps(self.science, sort_keys=True).encode()).hexdigest()

    @property
    def run_id(self) -> str:
        return f"{self.method.name}-{self.recipe}-{self.identity[:8]}"

    def to_json(self) -> dict:
        """What spec.json holds, with a checksum over it."""
        kept_apart = any(value.startswith(APART) for value in self.cluster.environment.values())
        from_run = any(isinstance(source, FromRun) for source in self.sources.values())
        known_since = FORMAT if from_run else KEPT_APART if kept_apart else BEFORE
        stored = {"format": known_since, "identity": self.identity, **self._fields()}
        return {**stored, "checksum": checksum(stored)}

    def shown(self) -> dict:
        """As `to_json`, for people: values of `cluster.environment` may be keys, and are masked."""
        found = self.to_json()
        hidden = dict.fromkeys(self.cluster.environment, MASK)
        return {**found, "cluster": {**found["cluster"], "environment": hidden}}

    def placement(self, plan: Mapping[str, Any]) -> dict:
        """What placement.json holds: where the run runs and the plan for that, with a checksum."""
        here = self._fields()
        stored = {"format": BEFORE, **{name: here[name] for name in _PLACE if name in here}, "plan": dict(plan)}
        return {**stored, "checksum": checksum(stored)}

    def _fields(self) -> dict[str, Any]:
        """As JSON holds them. What was added when there were runs already is left out where it says nothing: the code
        that a run was made with refuses a field of clusters that it does not know."""
        fields = dataclasses.asdict(self)
        if self.least_nodes is None:
            del fields["least_nodes"]
        if self.probes == PROBES:
            del fields["probes"]
        for name, usual in _SINCE.items():
            if fields["cluster"][name] == usual:
                del fields["cluster"][name]
        return fields

    def placed(self, stored: Mapping[str, Any]) -> "RunSpec":
        """The same science where `stored`, a placement, says. Raises ValueError when that was edited."""
        if stored["checksum"] != checksum({key: value for key, value in stored.items() if key != "checksum"}):
            raise ValueError("the checksum of its placement.json does not fit: it was edited")
        cluster = ClusterConfig(**stored["cluster"])
        check_types(cluster, "cluster.")
        here = {"nodes": stored["nodes"], "tasks_per_node": stored["tasks_per_node"]}
        spec = dataclasses.replace(self, cluster=freeze(cluster), **here, least_nodes=stored.get("least_nodes"))
        spec.check()
        return spec

    def check(self) -> None:
        """Raises ValueError where what a file says of it cannot be."""
        check_types(self)
        if self.nodes < 1 or self.tasks_per_node < 1:
            raise ValueError("it has no ranks")
        if self.least_nodes is not None and not 1 <= self.least_nodes < self.nodes:
            raise ValueError(f"it takes from {self.least_nodes} to {self.nodes} nodes, which is no range")

    def differences(self, other: "RunSpec") -> list[str]:
        """Operational fields in which `other` differs, as `field: here -> there`; the science is equal by identity."""
        here, there = self._typed(self.to_json()), other._typed(other.to_json())
        shown, newly = self._typed(self.shown()), other._typed(other.shown())
        return [
            f"{name}: {shown.get(name)} -> {newly.get(name)}"
            for name in {**here, **there}
            if here.get(name) != there.get(name)
        ]

    def _typed(self, tree: Mapping[str, Any]) -> dict[str, Any]:
        """What `to_json` or `shown` gave, each under its name, in the words of who types it."""
        said = flat({name: value for name, value in tree.items() if name not in ("least_nodes", "probes")})
        said |= {"probes": f"[{','.join(self.probes)}]", **flat(self.probes)}
        return {**said, "nodes": self.asked_nodes, "cluster.spare_nodes": self.cluster.spare_nodes}

    def moves(self, other: "RunSpec") -> list[str]:
        """Those of the differences that say where it runs."""
        return [change for change in self.differences(other) if change.startswith(_PLACE)]


def checksum(stored: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


# Fields of a cluster that were added when there were runs, and what they say where nobody has set them.
_SINCE = {
    "spare_nodes": 0, "srun": {}, "local_env": None, "standby": True, "preemptions_per_node_day": 0.0,
    "queue_minutes": (),
}  # fmt: skip
_PLACE = ("cluster", "nodes", "least_nodes", "tasks_per_node")


def freeze(config: Any) -> Any:
    """The same dataclass instance, no longer assignable, with its lists and mappings frozen. isinstance keeps working.

    What it holds is left as JSON can write it.
    """
    for item in dataclasses.fields(config):
        setattr(config, item.name, frozen(getattr(config, item.name)))
    config.__class__ = _frozen_kind(type(config))
    return config


@functools.cache  # dataclasses are equal only where they are of one class
def _frozen_kind(kind: type) -> type:
    return type(kind.__name__, (kind,), {"__setattr__": _refuse, "__delattr__": _refuse})


def frozen(value: Any) -> Any:
    """Lists and mappings as nobody can change them, and what they hold."""
    if isinstance(value, list | tuple):
        return tuple(frozen(item) for item in value)
    if isinstance(value, dict):
        return FrozenDict((key, frozen(item)) for key, item in value.items())
    return value


def _refuse(self: Any, name: str, *_: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"{type(self).__name__}.{name} is frozen: a spec never changes")


def _science(config: Any) -> dict:
    science = {}
    for f in dataclasses.fields(config):
        counts, value = f.metadata.get("science", True), getattr(config, f.name)
        if counts is True or (counts == "given" and value != f.default):
            science[f.name] = value.science if isinstance(value, InitFrom | FromRun) else value
    return science


def flat(tree: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """What a tree of mappings holds, each under the names that lead to it."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= {f"{key}{separator}{inner}": leaf for inner, leaf in flat(value, separator).items()}
        else:
            found[key] = list(value) if isinstance(value, tuple) else value
    return found
