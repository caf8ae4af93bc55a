"""NT-Xent, the contrastive loss of SimCLR (Chen et al., ICML 2020, Eq. 1 and Algorithm 1), over the images of all
ranks."""

import torch
from torch.nn.functional import logsigmoid, normalize

from methods.parts.collectives import differentiable_gather, rank
from methods.parts.losses import at_least_float32


def nt_xent(z: torch.Tensor, *, temperature: float = 0.1, directions: str = "mean") -> torch.Tensor:
    """Eq. 1, l(i, j) = -log(exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau)), s the cosine, for each crop i of this
    rank's images and each other crop j of the same image. Collective.

    z: of any length, floating point [V, B, d], V > 1 crops of this rank's images. temperature: tau. Returns a scalar,
    at least float32, whose mean over ranks is that of one rank with all N images, and so are gradients.

    With two crops the sum has 2N - 1 terms: the other crop of the image, and the 2 (N - 1) crops of the other images,
    never the crop itself. With more, each pair (i, j) has its own sum, over j and the crops of the other images; what
    other crops of its image there are is in none ("multicrop_simclr_info_nce_loss" of VISSL, where local crops are
    anchors, positives and negatives like global ones).

    directions: "mean": over all pairs, both (i, j) and (j, i): with two crops 1/2N of the sum, Algorithm 1. "sum": over
    the V crops, of the mean of each one's pairs: with two crops twice as much, as the released code adds up the two.
    Raises ValueError for one crop, no temperature or another word.

    >>> z = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 3.0]]])  # two crops of two images
    >>> round(nt_xent(z, temperature=1.0).item(), 4)  # log(1 + 2 / e)
    0.5514
    """
    crops, images, _ = z.shape
    if crops < 2:
        raise ValueError(f"z: {crops} crop of an image; there is no other one to find; give 2 or more")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: cosines are divided by it; give more than 0, the paper's is 0.1")
    if directions not in ("mean", "sum"):
        raise ValueError(f"directions={directions}: no such choice; use mean or sum")
    with torch.autocast(z.device.type, enabled=False):  # bf16 would round a cosine by 0.004, and tau is 0.1
        z = normalize(at_least_float32(z), dim=-1).transpose(0, 1)  # [B, V, d]
        keys = differentiable_gather(z)  # [N, V, d], those of this rank from row `first` on
        first = rank() * images
        logits = (z.flatten(0, 1) @ keys.flatten(0, 1).T / temperature).view(images, crops, len(keys), crops)
        own = logits.narrow(2, first, images).diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # [B, V, V], of one image
        numbers = torch.arange(len(keys), device=z.device)
        same = numbers == numbers[first : first + images, None]  # [B, N]
        # [B, V]: the log of the sum over the crops of other images
        negatives = logits.masked_fill(same[:, None, :, None], float("-inf")).logsumexp((2, 3))
        # -log(e^p / (e^p + e^n)) = -logsigmoid(p - n), Eq. 1
        losses = -logsigmoid(own - negatives.unsqueeze(-1))
        itself = torch.eye(crops, dtype=torch.bool, device=z.device)
        mean = losses.masked_fill(itself, 0).sum() / (images * crops * (crops - 1))  # Algorithm 1: 1/2N
    return crops * mean if directions == "sum" else mean
