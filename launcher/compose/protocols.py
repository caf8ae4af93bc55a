"""Which protocols an evaluation is made of, and their settings, from what a person typed.

protocol=knn,linear linear.epochs=10 'knn.neighbours=[5,20]' -> {"knn": {...}, "linear": {...}}, everything filled in
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from launcher.errors import InputError, unknown
from launcher.spec import registry

PROTOCOLS, needs = registry.facts("evals").PROTOCOLS, registry.facts("evals").needs
kind_of, refuse_unfit = registry.facts("evals").kind_of, registry.facts("evals").refuse_unfit

Settings = dict[str, dict[str, Any]]  # of each protocol, in the order in which they were asked for


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
        root, dot, _ = text.partition("=")[0].partition(".")
        if dot and root in PROTOCOLS:
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
    return registry.facts("evals").called(name, registry.facts("evals").changed(name, settings))


def defaults(names: Sequence[str], backbone: str) -> Settings:
    """The settings of the papers. Raises InputError for a protocol that the backbone does not have."""
    return {name: _settings(name, [], backbone) for name in names}


def fit(name: str, data: Any) -> None:
    """Raises InputError for a protocol that is not there, or that needs what is not known of the images of
    `data`, a data set's config or None."""
    kind_of(name)
    if data is not None:
        refuse_unfit([name], data)


def filled(settings: Settings) -> Settings:
    """`settings` with the defaults of those that their protocols have only had since."""
    return {
        name: {**(vars(PROTOCOLS[name]()) if name in PROTOCOLS else {}), **given} for name, given in settings.items()
    }


def _settings(name: str, given: Sequence[str], backbone: str) -> dict[str, Any]:
    kind = kind_of(name)
    known = {field.name for field in dataclasses.fields(kind)}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign:
            raise InputError(f"{text}: not an override; write key=value")
        if key.partition(".")[2] not in known:
            unknown(key, value, [f"{name}.{field}" for field in known], what="key")
    try:
        changes = OmegaConf.from_dotlist([text.partition(".")[2] for text in given])
        settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(kind), changes))
    except (OmegaConfBaseException, YAMLError) as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(f"{', '.join(given)}: {line}; give a value of its kind") from None
    settings.check(backbone)
    return dataclasses.asdict(settings)
