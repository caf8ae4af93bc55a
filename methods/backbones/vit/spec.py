"""Sizes of vision transformers (Dosovitskiy et al. 2020, Touvron et al. 2020; thesis, Table 5.1)."""

from methods.backbones.size import BackboneSize

PLACE = 7
KIND = {"batch_norm": False, "class_token": True}
SIZES = {
    "vit_tiny_16": BackboneSize(5_524_416, 192, 224, 1.253e9, 7.468e6, 16, 16, 0.143, unhalved=0.129, **KIND),
    "vit_small_16": BackboneSize(21_665_664, 384, 224, 4.599e9, 14.78e6, 16, 16, 0.078, unhalved=0.13, **KIND),
    "vit_small_8": BackboneSize(21_670_272, 384, 224, 22.41e9, 58.42e6, 8, 8, 0.253, unhalved=0.131, **KIND),
    # 220 pixels: as many whole patches as in 224.
    "vit_small_5": BackboneSize(22_067_712, 384, 220, 75.76e9, 143.9e6, 5, 5, 0.456, unhalved=0.131, **KIND),
    "vit_base_16": BackboneSize(85_798_656, 768, 224, 17.56e9, 29.39e6, 16, 16, 0.041, unhalved=0.13, **KIND),
    "vit_base_8": BackboneSize(85_807_872, 768, 224, 78.15e9, 116.7e6, 8, 8, 0.145, unhalved=0.131, **KIND),
}
