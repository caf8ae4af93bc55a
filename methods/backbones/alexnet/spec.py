"""Sizes of AlexNet (Krizhevsky et al. 2012) as in thesis 3.2.1, without its last layer."""

from methods.backbones.size import BackboneSize

PLACE = 2
SIZES = {"alexnet_bn": BackboneSize(58_272_480, 4096, 224, 1.096e9, 1.784e6, 63, colour=False, unhalved=0.138)}
