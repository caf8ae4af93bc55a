"""Sizes of VGG-16 (Simonyan & Zisserman 2014, configuration D) with batch normalisation, without its last layer."""

from methods.backbones.size import BackboneSize

PLACE = 1
SIZES = {"vgg16_bn": BackboneSize(134_268_416, 4096, 224, 15.44e9, 31.82e6, 32, colour=False, unhalved=0.096)}
