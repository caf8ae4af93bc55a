"""YAML files as OmegaConf reads them, on the parser in C where there is one: it takes a tenth of the time."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf._utils import get_yaml_loader


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
