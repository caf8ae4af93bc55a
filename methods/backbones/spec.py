"""Constants of the backbones, for plans made without torch. A test checks the counts against the real modules.

The papers' tables beside them: docs/backbones.md.
"""

from dataclasses import dataclass

# Of images in 0..1, over ImageNet, by colour; what networks trained on it are fed with.
RGB_MEAN, RGB_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Mean and spread of grey levels over ImageNet's three channels, the means of the above.
GREY_MEAN, GREY_STD = 0.449, 0.226


@dataclass(frozen=True)
class BackboneSize:
    """parameters: fp32 scalars; feature_dim: width of the clustered feature; macs: multiply-adds of a forward pass and
    activations: fp32 scalars kept for the backward pass, both for one image at `image_size`; smallest: image size.
    What is kept was counted by autograd's hooks, each storage once, weights left out; attention as on GPUs, where its
    N x N products are not kept.

    patch: pixels that an image must be a multiple of; None: any. attention: share of `macs` that grows with the square
    of the area, products of all patches with all. colour: takes 3 channels, normalised; otherwise Sobel-filtered grey.
    batch_norm: whether images of a batch meet in batch statistics. recomputed: what is kept where residual blocks are
    computed again for their gradients (`recompute.py`), with the largest of them; 0: it has none. unhalved: share of
    `activations` that bf16 and fp16 do not halve: autocast keeps the inputs of LayerNorm in fp32, and the positions of
    max-pooling are int64.
    """

    parameters: int
    feature_dim: int
    image_size: int
    macs: float
    activations: float
    smallest: int
    patch: int | None = None
    attention: float = 0.0
    colour: bool = True
    batch_norm: bool = True
    recomputed: float = 0.0
    unhalved: float = 0.0

    def macs_at(self, image_size: int) -> float:
        """`macs` for an image of another size: in proportion to its area, but for attention."""
        area = self._area(image_size)
        return self.macs * area * (1 - self.attention + self.attention * area)

    def activations_at(self, image_size: int, *, recompute: bool = False) -> float:
        """`activations`, or `recomputed`, for an image of another size: in proportion to its area."""
        return (self.recomputed if recompute else self.activations) * self._area(image_size)

    def kept_at(self, image_size: int, *, recompute: bool = False) -> tuple[float, float]:
        """`activations_at` in two: (what half precision halves, what it does not)."""
        kept = self.activations_at(image_size, recompute=recompute)
        return kept * (1 - self.unhalved), kept * self.unhalved

    def _area(self, image_size: int) -> float:
        return (image_size / self.image_size) ** 2


_SOBEL = {"colour": False}
_TRANSFORMER = {"batch_norm": False}
_POOLED = 0.019  # a ResNet's: one max-pooling

BACKBONES = {
    # Simonyan & Zisserman 2014, configuration D with batch normalisation, without its last layer.
    "vgg16_bn": BackboneSize(134_268_416, 4096, 224, 15.44e9, 31.82e6, 32, unhalved=0.096, **_SOBEL),
    # Krizhevsky et al. 2012 as in thesis 3.2.1, without its last layer.
    "alexnet_bn": BackboneSize(58_272_480, 4096, 224, 1.096e9, 1.784e6, 63, unhalved=0.138, **_SOBEL),
    "small_vgg": BackboneSize(491_520, 256, 32, 4.227e6, 86_496, 8, unhalved=0.167, **_SOBEL),
    # He et al. 2016; wN: N times the channels everywhere.
    "resnet50": BackboneSize(23_508_032, 2048, 224, 4.087e9, 21.53e6, 32, recomputed=11.19e6, unhalved=_POOLED),
    "resnet50_w2": BackboneSize(93_907_072, 4096, 224, 16.11e9, 42.91e6, 32, recomputed=22.23e6, unhalved=_POOLED),
    "resnet50_w4": BackboneSize(375_378_176, 8192, 224, 63.98e9, 85.66e6, 32, recomputed=44.31e6, unhalved=_POOLED),
    "resnet50_w5": BackboneSize(586_450_240, 10_240, 224, 99.82e9, 107.0e6, 32, recomputed=55.35e6, unhalved=_POOLED),
    "small_resnet": BackboneSize(307_536, 128, 32, 4.375e6, 83_872, 8, recomputed=75_870, unhalved=0.099),
    # Radosavovic et al. 2020.
    "regnety_128gf": BackboneSize(637_419_894, 7392, 224, 127.5e9, 159.4e6, 32, recomputed=43.33e6),
    "regnety_256gf": BackboneSize(1_272_156_138, 10_444, 224, 254.4e9, 224.9e6, 32, recomputed=60.65e6),
    # Dosovitskiy et al. 2020, Touvron et al. 2020 (thesis, Table 5.1). 220 pixels: as many whole patches as in 224.
    "vit_small_16": BackboneSize(21_665_664, 384, 224, 4.599e9, 14.78e6, 16, 16, 0.078, unhalved=0.13, **_TRANSFORMER),
    "vit_small_8": BackboneSize(21_670_272, 384, 224, 22.41e9, 58.42e6, 8, 8, 0.253, unhalved=0.131, **_TRANSFORMER),
    "vit_small_5": BackboneSize(22_067_712, 384, 220, 75.76e9, 143.9e6, 5, 5, 0.456, unhalved=0.131, **_TRANSFORMER),
    "vit_base_16": BackboneSize(85_798_656, 768, 224, 17.56e9, 29.39e6, 16, 16, 0.041, unhalved=0.13, **_TRANSFORMER),
    "vit_base_8": BackboneSize(85_807_872, 768, 224, 78.15e9, 116.7e6, 8, 8, 0.145, unhalved=0.131, **_TRANSFORMER),
    "small_vit": BackboneSize(107_904, 64, 32, 8.209e6, 158_290, 4, 4, 0.198, unhalved=0.193, **_TRANSFORMER),
    # Liu et al. 2021. Windows of 7 x 7 are filled up: at 96 pixels it takes a third more than its area says.
    "swin_tiny": BackboneSize(27_519_354, 768, 224, 4.490e9, 26.73e6, 32, 4, unhalved=0.306, **_TRANSFORMER),
}
