"""Cross-entropy with labels that are smoothed (Szegedy et al., CVPR 2016)."""

import torch
from torch.nn.functional import cross_entropy

from methods.parts.losses import at_least_float32


def of_labels(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """H(q, p) of every view of every image: p = softmax(logits), and q = (1 - epsilon) delta_y + epsilon / K (Section
    7).

    logits: floating point [V, B, K]; labels: y, int64 [B], from 0 to K - 1; smoothing: epsilon, from 0 to below 1.
    Returns float32 [V, B], in nats.

    >>> of_labels(torch.tensor([[[0.0, 0.0]], [[9.0, 0.0]]]), torch.tensor([1])).tolist()
    [[0.6931471824645996], [9.000123023986816]]
    """
    views, images, _ = logits.shape
    flat = at_least_float32(logits).flatten(0, 1)
    each = cross_entropy(flat, labels.repeat(views), label_smoothing=smoothing, reduction="none")
    return each.view(views, images)
