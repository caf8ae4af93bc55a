"""YAML files as OmegaConf reads them, on the parser in C where there is one: it takes a tenth of the time."""

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

from launcher.run import files

_INT = "tag:yaml.org,2002:int"
LARGEST = 4 << 20  # bytes of a file
DEEPEST, MOST = 50, 100_000  # of what it holds: levels, values
_CHECKED_BY = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)$")


def _leave_text_alone() -> None:
    """YAML 1.1 reads 16:00 as the number 960, to the base of 60, and the account 0123 as 83, to the base of 8; YAML
    1.2, and whoever writes them, as text. Said to the class from which the loaders of OmegaConf and Hydra have theirs.
    """
    yaml.SafeLoader.yaml_implicit_resolvers = {
        first: [(tag, _NUMBER if tag == _INT else rule) for tag, rule in rules]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_leave_text_alone()


class Boundless(yaml.YAMLError):
    """A file that no program reads to its end."""


def read(file: Path) -> Any:
    """What `file` holds. Raises yaml.YAMLError, also for a key that comes twice, and as `check`; no file executes
    code."""
    return yaml.load(_checked(file), _loader())


def check(file: Path) -> None:
    """Raises Boundless where `file` is nested so deeply, or holds so many values once what its aliases stand for is in
    their places, that nobody who reads it would come to an end: Hydra reads one's own groups by itself. What is no YAML
    at all it says, too.
    """
    try:
        _checked(file)
    except Boundless:
        raise
    except (yaml.YAMLError, OSError):
        pass


def _checked(file: Path) -> bytes:
    try:
        content = files.read(os.path.realpath(file), LARGEST)
    except files.NotOurs as error:
        raise Boundless(error) from None
    sizes: dict[str, int] = {}  # of what each anchor names, in values
    inside: list[tuple[str | None, int]] = []  # the anchor of each list and mapping around it; values before it
    total = 0
    # Events come one by one, whereas what makes values of them calls itself for each level.
    for event in yaml.parse(content, _CHECKED_BY):
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor in (name for name, _ in inside):
                raise Boundless(f"*{anchor} stands within what it names")
            total += sizes.get(anchor, 0)
        elif isinstance(event, yaml.NodeEvent):
            total += 1
            if isinstance(event, yaml.CollectionStartEvent):
                inside.append((anchor, total - 1))
            else:
                sizes[anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            sizes[anchor] = total - before
        if len(inside) > DEEPEST:
            raise Boundless(f"lists and mappings are nested more than {DEEPEST} deep")
        if total > MOST:
            raise Boundless(f"it holds more than {MOST:,} values")
    return content


@cache
def _loader() -> type:
    # Private: omegaconf has no public loader, and a plain one of yaml reads `1e-3` as text and keeps the second of two
    # equal keys. tests/launcher/compose/test_yamlfile.py notices a change.
    checked = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return checked

    class Loader(yaml.cyaml.CParser, checked):
        def __init__(self, stream: bytes):
            yaml.cyaml.CParser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Loader
