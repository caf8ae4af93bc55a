"""YAML files as OmegaConf reads them, on the parser in C where there is one: it takes a tenth of the time."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader

_INT = "tag:yaml.org,2002:int"
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


def read(file: Path) -> Any:
    """What `file` holds. Raises yaml.YAMLError, also for a key that comes twice; no file executes code."""
    return yaml.load(file.read_bytes(), _loader())


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
