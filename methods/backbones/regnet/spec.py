"""Sizes of RegNetY (Radosavovic et al. 2020)."""

from methods.backbones.size import BackboneSize

PLACE = 6
SIZES = {
    "regnety_128gf": BackboneSize(637_419_894, 7392, 224, 127.5e9, 159.4e6, 32, recomputed=43.33e6),
    "regnety_256gf": BackboneSize(1_272_156_138, 10_444, 224, 254.4e9, 224.9e6, 32, recomputed=60.65e6),
}
