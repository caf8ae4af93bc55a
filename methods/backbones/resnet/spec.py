"""Sizes of ResNet-50 (He et al. 2016); wN: N times the channels everywhere."""

from methods.backbones.size import BackboneSize

PLACE = 4
POOLED = 0.019  # one max-pooling's share of what is kept
SIZES = {
    "resnet50": BackboneSize(23_508_032, 2048, 224, 4.087e9, 21.53e6, 32, recomputed=11.19e6, unhalved=POOLED),
    "resnet50_w2": BackboneSize(93_907_072, 4096, 224, 16.11e9, 42.91e6, 32, recomputed=22.23e6, unhalved=POOLED),
    "resnet50_w4": BackboneSize(375_378_176, 8192, 224, 63.98e9, 85.66e6, 32, recomputed=44.31e6, unhalved=POOLED),
    "resnet50_w5": BackboneSize(586_450_240, 10_240, 224, 99.82e9, 107.0e6, 32, recomputed=55.35e6, unhalved=POOLED),
}
