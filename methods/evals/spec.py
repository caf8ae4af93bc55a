"""Every protocol's settings, found in the folders beside, one for each; the launcher reads them. Imports no torch.

sslrun eval RUN protocol=linear linear.epochs=10 'linear.rates=[0.1,1]'
"""

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from methods.evals.settings import Settings

for _file in Path(__file__).parent.glob("*/spec.py"):
    import_module(f"{__package__}.{_file.parent.name}.spec")
PROTOCOLS = {kind.name: kind for kind in sorted(Settings.__subclasses__(), key=lambda kind: kind.place)}


def need_labels(protocols: Iterable[str]) -> bool:
    """Whether one of them does."""
    return any(PROTOCOLS[name].labels for name in protocols)


def need_one_label(protocols: Iterable[str]) -> list[str]:
    """Those of them that can do nothing with images of several labels."""
    return [name for name in protocols if PROTOCOLS[name].labels and not PROTOCOLS[name].tags]


def changed(protocol: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a protocol's `settings` that are not the defaults."""
    usual = vars(PROTOCOLS[protocol]())
    return {name: value for name, value in settings.items() if value != usual.get(name)}


def called(protocol: str, changes: Mapping[str, Any]) -> str:
    """What the scores of a protocol with these `changes` stand under: linear, or linear(epochs=1,rates=[0.1,1.0])."""
    texts = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in changes.items()}
    return f"{protocol}({','.join(f'{k}={v}' for k, v in texts.items())})" if changes else protocol
