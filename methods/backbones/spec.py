"""Constants of the backbones, for plans made without torch. A test checks the counts against the real modules."""

from dataclasses import dataclass

RGB_MEAN = (0.485, 0.456, 0.406)
RGB_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class BackboneSize:
    """parameters: fp32 scalars; feature_dim: width of the clustered feature; macs: multiply-adds of a forward pass and
    activations: fp32 scalars kept for the backward pass, both for one image at `image_size`; smallest: image size."""

    parameters: int
    feature_dim: int
    image_size: int
    macs: float
    activations: float
    smallest: int

    def at(self, image_size: int) -> float:
        """Cost relative to `image_size`: convolutions dominate, so it grows with the area."""
        return (image_size / self.image_size) ** 2


BACKBONES = {
    # Simonyan & Zisserman 2014, configuration D with batch normalisation, without its last layer, first layer on the
    # 2 channels of a Sobel filter. 13.5M outputs of convolutions an image, kept before and after normalisation.
    "vgg16_bn": BackboneSize(134_268_416, 4096, 224, 15.44e9, 2 * 13.55e6, 32),
    "small_vgg": BackboneSize(491_520, 256, 32, 4.23e6, 2 * 30_720, 8),
}
