"""Values that a person may give to a field by mistake."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

NUMBERS = (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e30)


def odd_values(config: Any) -> Iterator[tuple[str, Any]]:
    """(field, value) for each field of a config, by the type of what it holds; the type itself is Hydra's to check."""
    for field in dataclasses.fields(config):
        if field.name == "name":
            continue
        value = getattr(config, field.name)
        match value:
            case bool():
                continue
            case int():
                given = (-1, 0, 10**6)
            case float() | None:
                given = NUMBERS
            case str():
                given = ("", "nonsense")
            case list():
                given = ([], [0.5], [0.9, 0.1], [-1.0, 0.5], [math.nan, 0.5], [0.5, math.inf])
            case _:
                raise TypeError(f"{field.name}={value!r}: say what may be given for it by mistake")
        yield from ((field.name, odd) for odd in given)
