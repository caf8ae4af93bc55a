"""What `sslrun kmeans` and `sslrun eval weights=FILE` share: work that trains nothing, of which a person types the
fields without the `method.` that composing knows them by."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from launcher.compose.other_words import unknown_key
from launcher.compose.training import composed, to_object, typed
from launcher.errors import InputError

ROOTS = ("cluster", "data", "nodes", "tasks_per_node", "seed", "runs", "group")  # what else a person may give


def translated(
    name: str, recipe: str, overrides: Iterable[str], given: Collection[str], also: Iterable[str] = ()
) -> list[str]:
    """As composing knows them: k=10 is method.k=10. Raises InputError for a key that is in neither `given` nor ROOTS.

    also: keys that are right, too, and were read before.
    """
    told = [f"method={name}", f"recipe={recipe}"]
    for text in overrides:
        key, _, value = text.partition("=")
        if key in given:
            text = f"method.{text}"
        elif key.lstrip("+~").partition(".")[0] not in ROOTS:
            unknown_key(key, value, (*given, *ROOTS, *also))
        told.append(text)
    return told


def config_of(told: list[str], config_dir: Path | None) -> dict[str, Any]:
    """The config of what `translated` gave, not yet frozen. Raises InputError in the words of who typed."""
    try:
        root, _ = composed(told, config_dir=config_dir)
        return to_object(typed(root))
    except InputError as error:
        raise error.about(error.field.removeprefix("method.")) from None
