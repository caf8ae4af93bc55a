"""Sizes of a residual network in miniature, for demo and tiny."""

from methods.backbones.size import BackboneSize

PLACE = 5
SIZES = {"small_resnet": BackboneSize(307_536, 128, 32, 4.375e6, 83_872, 8, recomputed=75_870, unhalved=0.099)}
