"""Backbones by name: one folder for each family, with its sizes for the launcher (`spec.py`, no torch) beside what
builds it (`network.py`). Whatever several families share lies here."""

from importlib import import_module
from inspect import signature
from types import ModuleType
from typing import TYPE_CHECKING

from methods.backbones.spec import BACKBONES, PACKAGES

if TYPE_CHECKING:
    from torch import nn


def build(name: str, *, dropout: float = 0.0, drop_path: float = 0.0, zero_init_residual: bool = False) -> "nn.Module":
    """The backbone `name`: images [B, C, H, W] -> features [B, feature_dim]. `.trunk` is what is exported.

    Images are uint8, or float that is normalised already (see `inputs.py`). dropout: before the fully
    connected layers of AlexNet and VGG. drop_path: the last residual branch of a transformer is dropped with this
    probability, those before it less (Huang et al. 2016). zero_init_residual: residual blocks of a ResNet or RegNet
    begin as the identity (Goyal et al. 2017, 5.1). A backbone ignores what it does not have. Weights are drawn as their
    authors draw them, from torch's generator. Raises KeyError for a name that is not in `spec.BACKBONES`.
    """
    from methods.backbones.inputs import ColourInput, SobelInput
    from methods.backbones.wrapper import Backbone

    given = {"name": name, "dropout": dropout, "drop_path": drop_path, "zero_init_residual": zero_init_residual}
    make = network(name).build
    trunk = make(**{key: given[key] for key in signature(make).parameters.keys() & given.keys()})
    return Backbone(trunk, ColourInput() if BACKBONES[name].colour else SobelInput())


def as_published(backbone: "nn.Module", name: str) -> None:
    """Have `backbone`, of `build(name)`, compute as the code does that published weights of it come from, where that is
    not how ours train."""
    change = getattr(network(name), "as_published", None)
    if change:
        change(backbone.trunk)


def network(name: str) -> ModuleType:
    """The network.py of the backbone `name`, imported only here because torchvision and timm take seconds.

    `build` makes its trunk from those arguments of `backbones.build` that it names; `stages(trunk)` gives the modules
    whose outputs are its stages, by name and in order. Where there is need: BLOCK, the class or classes of residual
    blocks that can be computed again; MAP, the two axes of a stage's map, (2, 3) by default; LOAD, the call that makes
    a public network into which an export loads, or one for each name; PADDING, how that one differs; `exported(state)`
    and `imported(state)`, to it and back; `as_published(trunk)`, see there; NAMES, functions from a parameter's name to
    what another publisher calls it; UNUSED, an expression for those of their names that nothing here takes. Raises
    KeyError for a name that is not in `spec.BACKBONES`.
    """
    return import_module(f"{PACKAGES[name]}.network")
