"""What a plan knows of a backbone, without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneSize:
    """parameters: fp32 scalars; feature_dim: width of the clustered feature; macs: multiply-adds of a forward pass and
    activations: fp32 scalars kept for the backward pass, both for one image at `image_size`; smallest: image size.
    What is kept was counted by autograd's hooks, each storage once, weights left out; attention as on GPUs, where its
    N x N products are not kept.

    patch: pixels that an image must be a multiple of; None: any. attention: share of `macs` that grows with the square
    of the area, products of all patches with all. colour: takes 3 channels, normalised; otherwise Sobel-filtered grey.
    batch_norm: whether images of a batch meet in batch statistics. class_token: whether it has one, which looks at the
    patches. recomputed: what is kept where residual blocks are computed again for their gradients (`recompute.py`),
    with the largest of them; 0: it has none. unhalved: share of `activations` that bf16 and fp16 do not halve: autocast
    keeps the inputs of LayerNorm in fp32, and the positions of max-pooling are int64.
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
    class_token: bool = False
    recomputed: float = 0.0
    unhalved: float = 0.0

    @property
    def last_scales(self) -> bool:
        """Whether its residual blocks end with batch normalisation, whose scale may begin at 0."""
        return self.batch_norm and self.recomputed > 0

    def macs_at(self, image_size: int) -> float:
        """`macs` for an image of another size: in proportion to its area, but for attention."""
        area = self._area(image_size)
        return self.macs * area * (1 - self.attention + self.attention * area)

    def kept_at(self, image_size: int, *, recompute: bool = False) -> tuple[float, float]:
        """(what half precision halves, what it does not) of `activations`, or of `recomputed`, for an image of another
        size: in proportion to its area."""
        kept = (self.recomputed if recompute else self.activations) * self._area(image_size)
        return kept * (1 - self.unhalved), kept * self.unhalved

    def _area(self, image_size: int) -> float:
        return (image_size / self.image_size) ** 2
