"""Which protocols an evaluation is made of, and their settings, from what a person typed.

protocol=knn,linear linear.epochs=10 'knn.neighbours=[5,20]' -> {"knn": {...}, "linear": {...}}, everything filled in
probes=[knn,linear] linear.epochs=5 linear.eval_every=10     -> {"knn": {}, "linear": {"epochs": 5, "eval_every": 10}}
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from launcher.compose.other_words import unknown_key
from launcher.errors import InputError
from launcher.spec import registry
from launcher.spec.runspec import PROBES, RunSpec, frozen
from launcher.spec.schema import LaunchConfig

PROTOCOLS, needs = registry.facts("evals").PROTOCOLS, registry.facts("evals").needs
kind_of, refuse_unfit = registry.facts("evals").kind_of, registry.facts("evals").refuse_unfit
changed = registry.facts("evals").changed

Settings = dict[str, dict[str, Any]]  # of each protocol, in the order in which they were asked for
EVERY = "eval_every"  # epochs; beside the settings of a protocol that judges a training


def taken(overrides: Sequence[str], backbone: str) -> tuple[Settings, list[str]]:
    """(the protocols of `protocol=` with their settings, the overrides that speak of other things). Raises InputError
    for a protocol, a setting or a value that cannot be."""
    asked = [text.partition("=")[2] for text in overrides if text.partition("=")[0] == "protocol"]
    names = [name.strip() for name in asked[-1].strip("[]").split(",")] if asked else []
    if not names or not all(names):
        raise InputError(f"protocol is missing; say protocol=NAME, one of {', '.join(PROTOCOLS)}")
    for name in names:
        kind_of(name)
        if names.count(name) > 1:
            raise InputError.of("protocol", asked[-1], f"{name} comes twice", "leave one out")
    of: dict[str, list[str]] = {name: [] for name in names}
    rest = []
    for text in overrides:
        root = text.partition(".")[0]
        if is_setting(text):
            if root not in of:
                fix = f"say protocol={','.join([*names, root])}, or leave it out"
                raise InputError.of(*text.partition("=")[::2], f"protocol={asked[-1]} has no {root}", fix)
            of[root].append(text)
        elif text.partition("=")[0] != "protocol":
            rest.append(text)
    return {name: _settings(name, given, backbone) for name, given in of.items()}, rest


def called_as(overrides: Sequence[str], backbone: str) -> str:
    """What the scores of one protocol with these overrides stand under: linear(epochs=10)."""
    ((name, settings),) = taken(overrides, backbone)[0].items()
    return registry.facts("evals").called(name, changed(name, settings))


def is_setting(text: str) -> bool:
    """Whether an override is of a protocol: linear.epochs=10."""
    root, dot, _ = text.partition("=")[0].partition(".")
    return bool(dot) and root in PROTOCOLS


def probes(asked: Any, typed: Sequence[str], backbone: str) -> Settings:
    """What `probes=` and the settings that were `typed` ask for: of each protocol what is not the default, and its
    `eval_every`. Raises InputError for a protocol, a setting or a value that cannot be."""
    names = [str(name) for name in asked] if isinstance(asked, list | tuple) else [str(asked)] if asked else []
    said = f"[{','.join(names)}]"
    for name in names:
        fit(name, None, "probes")
        if names.count(name) > 1:
            raise InputError.of("probes", said, f"{name} comes twice", "leave one out")
    for text in typed:
        if (root := text.partition(".")[0]) not in names:
            fix = f"say 'probes=[{','.join([*names, root])}]', or leave it out"
            raise InputError.of(*text.partition("=")[::2], f"probes={said} has no {root}", fix)
    found = {}
    for name in names:
        given = [text for text in typed if text.partition(".")[0] == name]
        every = [text for text in given if text.partition("=")[0] == f"{name}.{EVERY}"]
        try:
            settings = _settings(name, [text for text in given if text not in every], backbone, also=(EVERY,))
        except InputError as error:
            raise (error.about("probes") if error.field == "protocol" else error) from None
        found[name] = {**changed(name, settings), **({EVERY: _every(every[-1])} if every else {})}
    return found


def between(config: Mapping[str, Any], *, planning: bool) -> Settings:
    """What judges a composed training between its steps. Raises InputError where somebody asked for what is not for
    these images."""
    found = config["probes"]
    if found == LaunchConfig.probes:
        return PROBES
    data = config["eval_data"] or config["data"]
    for name in found:
        fit(name, data, "probes")
    labels = data is not None and "label" in data.truth and any("label" in kind_of(name).needs for name in found)
    reason = data.no_labels() if labels and not planning else None
    if reason:
        fix = "give labelled images: eval_data=image_folder eval_data.path=/path/to/them"
        raise InputError.of("probes", f"[{','.join(found)}]", f"{data.name} has no labels ({reason})", fix)
    return frozen(found)


def refuse_unshared(spec: RunSpec) -> None:
    """Raises InputError where the images of a probe's steps do not share out to the ranks, on any number of nodes that
    the training may get: hours later it would be left out."""
    for name, probe in spec.probes.items() if spec.probes != PROBES else ():
        asked = kind_of(name)(**{key: value for key, value in probe.items() if key != EVERY})
        for count in range(spec.least_nodes or spec.nodes, spec.nodes + 1):
            asked.refuse_unshared(count * spec.tasks_per_node)


def afterwards(config: Mapping[str, Any]) -> tuple[str, ...]:
    """`eval_after=knn` and `eval_after=[knn,linear]`. Raises InputError for a protocol that is not there, or not for
    this backbone or these images."""
    given = config["eval_after"]
    names = tuple(given) if isinstance(given, list) else (given,) if given else ()
    for name in names:
        fit(str(name), config["eval_data"] or config["data"], "eval_after")
    defaults(names, config["method"].backbone)
    return names


def _every(text: str) -> float:
    key, _, value = text.partition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise InputError.of(key, value, "no number of epochs", "give one, such as 2 or 0.5; 0 judges at the end only")
    return int(number) if number.is_integer() else number


def defaults(names: Sequence[str], backbone: str) -> Settings:
    """The settings of the papers. Raises InputError for a protocol that the backbone does not have."""
    return {name: _settings(name, [], backbone) for name in names}


def fit(name: str, data: Any, field: str) -> None:
    """Raises InputError, about `field`, for a protocol that is not there, or that needs what is not known of the images
    of `data`, a data set's config or None."""
    try:
        kind_of(name)
        if data is not None:
            refuse_unfit([name], data, asked=field)
    except InputError as error:
        raise error.about(field) from None


def filled(settings: Settings) -> Settings:
    """`settings` with the defaults of those that their protocols have only had since."""
    return {
        name: {**(vars(PROTOCOLS[name]()) if name in PROTOCOLS else {}), **given} for name, given in settings.items()
    }


def _settings(name: str, given: Sequence[str], backbone: str, *, also: Sequence[str] = ()) -> dict[str, Any]:
    """also: what else a person may set there, for whoever mistypes it."""
    kind = kind_of(name)
    known = {field.name for field in dataclasses.fields(kind)}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"{text}: not an override; write key=value")
        if key.partition(".")[2] not in known:
            unknown_key(key, value, [f"{name}.{field}" for field in (*known, *also)])
    config = OmegaConf.structured(kind)
    for text in given:  # one by one, so that what is wrong is known
        key, _, value = text.partition("=")
        field = key.partition(".")[2]
        try:
            config = OmegaConf.merge(config, OmegaConf.from_dotlist([f"{field}={value}"]))
        except (OmegaConfBaseException, YAMLError):
            raise InputError.of(key, value, f"it is not {_wanted(kind, field)}", "give one") from None
    settings = OmegaConf.to_object(config)
    settings.check(backbone)
    return dataclasses.asdict(settings)


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _wanted(kind: type, field: str) -> str:
    """What a setting takes, in words: a whole number, or null."""
    told = []
    for each in _parts(get_type_hints(kind)[field]):
        if get_origin(each) is list:
            (inner,) = get_args(each)
            numbers = inner in (int, float)
            of = f"{_KINDS[inner].removeprefix('a ')}s, such as [1]" if numbers else "texts, such as [a]"
            told.append(f"a list of {of}")
        else:
            told.append("null" if each is NoneType else _KINDS.get(each, "a value of its kind"))
    return " or ".join(told)


def _parts(hint: Any) -> tuple[Any, ...]:
    """Those of a union; else itself."""
    return get_args(hint) if isinstance(hint, UnionType) or get_origin(hint) is Union else (hint,)
