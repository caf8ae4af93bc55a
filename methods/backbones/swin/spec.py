"""Sizes of Swin (Liu et al. 2021)."""

from methods.backbones.size import BackboneSize

PLACE = 9
# Windows of 7 x 7 are filled up: at 96 pixels it takes a third more than its area says.
SIZES = {"swin_tiny": BackboneSize(27_519_354, 768, 224, 4.490e9, 26.73e6, 32, 4, unhalved=0.306, batch_norm=False)}
