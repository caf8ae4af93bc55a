"""Sizes of a vision transformer in miniature, for demo and tiny."""

from methods.backbones.size import BackboneSize

PLACE = 8
KIND = {"batch_norm": False, "class_token": True}
SIZES = {"small_vit": BackboneSize(107_904, 64, 32, 8.209e6, 158_290, 4, 4, 0.198, unhalved=0.193, **KIND)}
