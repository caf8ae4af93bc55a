"""NT-Xent, the contrastive loss (Chen et al., ICML 2020, Eq. 1 and Algorithm 1), over the images of all ranks."""

import torch
from torch.nn.functional import logsigmoid, normalize

from methods.parts.collectives import differentiable_gather, rank
from methods.parts.losses import at_least_float32


def nt_xent(z: torch.Tensor, *, temperature: float = 0.1, summed: bool = False) -> torch.Tensor:
    """Eq. 1, l(i, j) = -log(exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau)), s the cosine: of each crop i of this
    rank's images with each other crop j of the same image. Collective.

    z: of any length, floating point [V, B, d], V > 1 crops of B images. temperature: tau. The sum is over j and the V
    (N - 1) crops of the other images of all ranks: for two crops all but i. Of more crops of an image, each pair has
    its own sum, without the others: local crops are like global ones, as in VISSL's multicrop_simclr_info_nce_loss,
    whose negatives are those of one GPU alone (it gathers all embeddings, and leaves out the others').

    Returns a scalar, at least float32: the mean over all pairs, (i, j) and (j, i); for two crops 1/2N of their sum
    (Algorithm 1). summed: V times as much; for two crops the released code's sum of both directions, each a mean.
    Raises ValueError for a single crop, or no temperature.

    >>> z = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 3.0]]])  # two crops of two images
    >>> round(nt_xent(z, temperature=1.0).item(), 4)  # log(1 + 2 / e)
    0.5514
    """
    crops, images, _ = z.shape
    if crops < 2:
        raise ValueError(f"z: {crops} crop of an image; there is no other one to find; give 2 or more")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: cosines are divided by it; give more than 0, the paper's is 0.1")
    with torch.autocast(z.device.type, enabled=False):  # bf16 would round a cosine by 0.004, and tau is 0.1
        z = normalize(at_least_float32(z), dim=-1)
        keys = differentiable_gather(z.transpose(0, 1))  # [N, V, d]; this rank's images begin at `first`
        first = rank() * images
        s = torch.einsum("vbd,nwd->vbnw", z, keys) / temperature
        positives = s.narrow(2, first, images).diagonal(dim1=1, dim2=2)  # [V, V, B]
        same = torch.ones(images, len(keys), dtype=torch.bool, device=z.device).triu(first).tril(first)  # [B, N]
        negatives = s.masked_fill(same.unsqueeze(-1), float("-inf")).logsumexp((2, 3))  # [V, B], log of their sum
        pairs = -logsigmoid(positives - negatives.unsqueeze(1))  # Eq. 1: -log(e^p / (e^p + e^n))
        itself = torch.eye(crops, dtype=torch.bool, device=z.device).unsqueeze(-1)
        mean = pairs.masked_fill(itself, 0).sum() / (images * crops * (crops - 1))  # Algorithm 1: 1/2N
    return crops * mean if summed else mean
