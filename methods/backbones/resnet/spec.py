"""Sizes of ResNets (He et al. 2016; wN: N times the channels everywhere) and ResNeXt (Xie et al. 2017)."""

from methods.backbones.size import BackboneSize

PLACE = 4
POOLED = 0.019  # one max-pooling's share of what ResNet-50 keeps, at any width
SIZES = {
    "resnet18": BackboneSize(11_176_512, 512, 224, 1.814e9, 5.554e6, 32, recomputed=4.090e6, unhalved=0.072),
    "resnet34": BackboneSize(21_284_672, 512, 224, 3.663e9, 8.070e6, 32, recomputed=4.717e6, unhalved=0.05),
    "resnet50": BackboneSize(23_508_032, 2048, 224, 4.087e9, 21.53e6, 32, recomputed=11.19e6, unhalved=POOLED),
    "resnet50_w2": BackboneSize(93_907_072, 4096, 224, 16.11e9, 42.91e6, 32, recomputed=22.23e6, unhalved=POOLED),
    "resnet50_w4": BackboneSize(375_378_176, 8192, 224, 63.98e9, 85.66e6, 32, recomputed=44.31e6, unhalved=POOLED),
    "resnet50_w5": BackboneSize(586_450_240, 10_240, 224, 99.82e9, 107.0e6, 32, recomputed=55.35e6, unhalved=POOLED),
    "resnext101_32x8d": BackboneSize(86_742_336, 2048, 224, 16.41e9, 61.87e6, 32, recomputed=17.21e6, unhalved=0.007),
}
