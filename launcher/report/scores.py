"""Scores of evaluations where a person reads them, under the names that their protocols give them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

ROOM = 40  # characters of settings that each label has room for; more stand once, in a line above
NAME = re.compile(r"([^(:]*)(\(.*?\))?(?::(.*))?", re.DOTALL)  # protocol(settings):data(settings)


def labelled(evals: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """(label, score) of each score of `evals`, {protocol(settings):data: scores}, that a screen has room for. Settings
    and data are there where they are not the usual ones. Above those of many settings a line has these and no score."""
    from launcher.spec import registry

    known = registry.facts("evals").PROTOCOLS
    for said, scores in evals.items():
        name, settings, data = NAME.fullmatch(said).groups()
        protocol = known.get(name)
        asked = f"{f' {settings}' if settings else ''}{f' on {data}' if data else ''}"
        named = protocol.shown(scores) if protocol else {}
        shown = {key: label for key, label in named.items() if isinstance(scores.get(key), int | float)}
        apart = bool(shown) and len(asked) > ROOM
        if apart:
            yield protocol.title + re.sub(r",(?=\w+=)", ", ", asked), ""
        for key, label in shown.items():
            score = f"{scores[key]:g}" if key in protocol.no_percent else f"{scores[key]:.1f} %"
            yield (f"  {label}" if apart else f"{protocol.title}{asked}, {label}"), score
