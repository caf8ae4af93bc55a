"""Cross-entropy with labels that are smoothed, and shared by two images (Szegedy et al. 2016; Zhang et al. 2018)."""

import torch
from torch.nn.functional import cross_entropy

from methods.parts.losses import at_least_float32


def of_labels(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """H(q, p) of every view of every image: p = softmax(logits), and q = (1 - epsilon) delta_y + epsilon / K (Szegedy
    et al., "Rethinking the Inception architecture", CVPR 2016, Section 7).

    logits: floating point [V, B, K]; labels: y, int64 [B], from 0 to K - 1; smoothing: epsilon, from 0 to below 1.
    Returns float32 [V, B], in nats.

    >>> of_labels(torch.tensor([[[0.0, 0.0]], [[9.0, 0.0]]]), torch.tensor([1])).tolist()
    [[0.6931471824645996], [9.000123023986816]]
    """
    views, images, _ = logits.shape
    flat = at_least_float32(logits).flatten(0, 1)
    each = cross_entropy(flat, labels.repeat(views), label_smoothing=smoothing, reduction="none")
    return each.view(views, images)


def of_mixtures(
    logits: torch.Tensor, labels: torch.Tensor, others: torch.Tensor, own: torch.Tensor, *, smoothing: float = 0.0
) -> torch.Tensor:
    """As `of_labels`, where a share lambda of what is seen is the image's own, and the rest its partner's: the target
    is lambda q(y) + (1 - lambda) q(y') (Zhang et al., "mixup", ICLR 2018, Eq. 1).

    others: y', int64 [B]; own: lambda, floating point [V, B], from 0 to 1.

    >>> logits = torch.tensor([[[0.0, 9.0]]])
    >>> of_mixtures(logits, torch.tensor([0]), torch.tensor([1]), torch.tensor([[0.25]])).item()  # a quarter of 9
    2.250123500823975
    """
    one, two = (of_labels(logits, each, smoothing=smoothing) for each in (labels, others))
    return own * one + (1 - own) * two
