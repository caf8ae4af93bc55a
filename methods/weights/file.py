"""Weights out of a file, into a backbone of ours."""

from pathlib import Path

from torch import nn

from launcher.errors import InputError
from launcher.run import manifest, waiting
from methods.backbones.layouts import Found, Source, of_file
from methods.weights.spec import WeightsConfig


def load(backbone: nn.Module, config: WeightsConfig) -> Found:
    """Copy the weights of the file into `backbone`, of `methods.backbones.build`. Returns what was found, and where.

    Raises InputError, one line, where the file cannot be read, is not what was asked for when the run was made, or
    holds another network or numbers that are not finite (`layouts.of_file`); Unreadable.
    """
    path = Path(config.weights)
    try:
        digest = waiting.patiently(lambda: manifest.sha256(path))
    except OSError as error:
        raise InputError.of("weights", path, f"cannot be read ({error.strerror})", "restore it") from None
    if digest != config.content:
        raise InputError.of("weights", path, "it has changed since this was asked for", "ask again")
    source = Source("weights", path, backbone="backbone", key=True)
    found = waiting.patiently(lambda: of_file(config.backbone, source, config.key))
    backbone.load_state_dict(found.state, strict=True)
    return found
