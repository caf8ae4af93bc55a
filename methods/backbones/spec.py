"""Every backbone's constants, for plans made without torch: found in the folders beside, one for each family.

A test checks the counts against the real modules. The papers' tables beside them: docs/backbones.md.
"""

from importlib import import_module
from pathlib import Path

# Of files that weights are read from; .tar as in .pth.tar, .torch VISSL's, .ckpt Lightning's.
SUFFIXES = (".safetensors", ".pt", ".pth", ".tar", ".torch", ".ckpt")
# Of images in 0..1, over ImageNet, by colour; what networks trained on it are fed with.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Mean and spread of grey levels over ImageNet's three channels, the means of the above.
GREY_MEAN, GREY_STD = 0.449, 0.226

_FOUND = (import_module(f"{__package__}.{file.parent.name}.spec") for file in Path(__file__).parent.glob("*/spec.py"))
_FAMILIES = sorted(_FOUND, key=lambda family: family.PLACE)  # in lists that people read
BACKBONES = {name: size for family in _FAMILIES for name, size in family.SIZES.items()}
PACKAGES = {name: family.__package__ for family in _FAMILIES for name in family.SIZES}
