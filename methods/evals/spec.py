"""Every protocol's settings, found in the folders beside, one for each, and those of other packages; the launcher reads
them. Imports no torch.

sslrun eval RUN protocol=linear linear.epochs=10 'linear.rates=[0.1,1]'
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from launcher.errors import InputError, unknown
from launcher.spec import registry
from launcher.spec.schema import LaunchConfig
from methods.data.sets.base import DataSet, told
from methods.data.spec import DATA
from methods.evals.settings import Settings
from methods.evals.settings import key_of as key_of


class _Protocols(registry.ByName):
    """By name: ours in the order of their places, then those of other packages."""

    def __init__(self) -> None:
        ours = (file.parent.name for file in Path(__file__).parent.glob("*/spec.py"))
        super().__init__({name: f"{__package__}.{name}.spec" for name in ours}, Settings)
        self.others: dict[str, type[Settings]] = {}

    def __getitem__(self, name: str) -> type[Settings]:
        return self.others[name] if name in self.others else super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in self.others or super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        yield from sorted(super().__iter__(), key=lambda name: self[name].place)
        yield from self.others

    def __len__(self) -> int:
        return super().__len__() + len(self.others)


PROTOCOLS = _Protocols()
BROKEN: dict[str, InputError] = {}  # why those of other packages cannot be used: nobody else's work is to suffer
# Names that would mean two things: words of a command line, kept features, and scores that a training has of its own.
TAKEN = {field.name for field in dataclasses.fields(LaunchConfig)} | {"protocol", "step", "weights", "backbone"}
TAKEN |= {"train", "test", "clusters"}
OF_THE_PLACE = ("path", "max_broken", "max_pixels")  # fields of a data set that say nothing of which images it has
MOST_SETS = 3  # data sets that a line names


def _wrong(name: str, kind: Any) -> str:
    """Why what a package registers under `name` is no protocol; empty where it is one."""
    if not (isinstance(kind, type) and issubclass(kind, Settings) and dataclasses.is_dataclass(kind)):
        return "it is no dataclass over methods.evals.settings.Settings"
    if (getattr(kind, "name", ""), name.isidentifier()) != (name, True):
        return f"its name is {getattr(kind, 'name', '')!r}"
    if name in TAKEN:
        return "the name means something else"
    if not hasattr(kind, "title"):
        return "it has no title"
    beside = kind.__module__.rpartition(".")[0]
    if not (beside and find_spec(f"{beside}.protocol")):
        return "there is no protocol.py beside it, in its package"
    try:
        vars(kind())  # the launcher asks every protocol for its defaults
    except Exception as error:  # whatever its __post_init__ does
        return f"it has no defaults: {error}"
    return ""


for _name, _point in sorted(registry.installed(registry.PROTOCOLS).items()):  # behind ours, whose numbers stay
    try:
        if _name in PROTOCOLS:  # ours goes on: who has work done with it installed no other
            raise InputError.of("protocol", _name, f"{_point.value}: one of ours has that name", "mend the package")
        _kind = registry.loaded(_point, "protocol")
        if _reason := _wrong(_name, _kind):
            raise InputError.of("protocol", _name, f"{_point.value}: {_reason}", "mend the package")
        PROTOCOLS.others[_name] = _kind
    except InputError as _error:
        BROKEN[_name] = _error


def kind_of(protocol: str) -> type[Settings]:
    """Its settings' class. Raises InputError with the nearest name where there is none, and where the package that
    registers it is broken."""
    if protocol in PROTOCOLS:
        return PROTOCOLS[protocol]
    if protocol in BROKEN:
        raise BROKEN[protocol]
    unknown("protocol", protocol, PROTOCOLS)


def needs(protocols: Iterable[str]) -> set[str]:
    """What these must know of images, of TRUTHS; to each protocol any one of its own will do. Raises InputError for one
    that is not there."""
    return {each for name in protocols for each in kind_of(name).needs}


def refuse_unfit(protocols: Iterable[str], data: DataSet, give: str = "eval_data", asked: str = "protocol") -> None:
    """Raises InputError where one of them needs what is not known of the images of `data`, or its settings do, where
    they are a mapping to these. give: the field to set instead; asked: the one that names the protocols."""
    for name in protocols:
        wanted = kind_of(name).needs
        if not wanted or {*wanted} & {*data.truth}:
            if isinstance(protocols, Mapping):
                kind_of(name)(**protocols[name]).check_images(data)
            continue
        able = [other for other, kind in PROTOCOLS.items() if {*kind.needs} & {*data.truth}]
        sets = [other for other, kind in DATA.items() if {*kind.truth} & {*wanted}]
        other = " or ".join(sets) if len(sets) <= MOST_SETS else f"NAME, of images with {told(wanted, ' or ')}"
        fix = f"use {give}={other}" + (f", or {asked}={' or '.join(able)}" if able else "")
        reason = f"it needs {told(wanted, ' or ')}, and {data.name} has {told(data.truth)}"
        raise InputError.of(asked, name, reason, fix)


def changed(protocol: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a protocol's `settings` that are not the defaults; a frozen spec has tuples for lists."""
    usual = vars(PROTOCOLS[protocol]())
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    return {name: value for name, value in plain.items() if value != usual.get(name)}


def images_of(data: Any) -> str:
    """What images are called where scores on them stand beside others: inaturalist, or inaturalist(year=2019). data: a
    data set's config, frozen or not; where it lies, and what it makes of broken images, is no part of it."""
    usual = DATA[data.name]()
    fields = (field.name for field in dataclasses.fields(usual) if field.name not in OF_THE_PLACE)
    said = {name: getattr(data, name) for name in fields if getattr(data, name) != getattr(usual, name)}
    return called(data.name, said)


def called(protocol: str, changes: Mapping[str, Any]) -> str:
    """What the scores of a protocol with these `changes` stand under: linear, or linear(epochs=1,rates=[0.1,1.0]).
    Settings of pictures are left out."""
    drawn = PROTOCOLS[protocol].drawn if protocol in PROTOCOLS else ()  # a data set has none
    changes = {k: v for k, v in changes.items() if k not in drawn}
    texts = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in changes.items()}
    return f"{protocol}({','.join(f'{k}={v}' for k, v in texts.items())})" if changes else protocol
