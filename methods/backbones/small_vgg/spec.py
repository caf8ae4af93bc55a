"""Sizes of VGG in miniature, for demo and tiny."""

from methods.backbones.size import BackboneSize

PLACE = 3
SIZES = {"small_vgg": BackboneSize(491_520, 256, 32, 4.227e6, 86_496, 8, colour=False, unhalved=0.167)}
