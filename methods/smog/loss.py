"""SMoG's loss: instances against group features, through which gradients flow, too (Pang et al. 2022, 3.1)."""

import torch
from torch.nn.functional import cross_entropy, normalize

from methods.parts.losses import at_least_float32


def group_contrast(
    predictions: torch.Tensor, groups: torch.Tensor, labels: torch.Tensor, *, temperature: float = 0.1
) -> torch.Tensor:
    """Eq. 3: -log softmax_j(sim(f(x_a), g_j) / temperature) at j = c_b, sim the cosine similarity, mean over this
    rank's images and over views.

    predictions: of the online network for one view or for V of them, floating point [B, d] or [V, B, d]; groups: the
    features g of all groups, [k, d], just updated and with their gradient; labels: c_b, the group of each image's other
    view, int64 [B]. Returns a float32 scalar; similarities are float32 whatever the autocast, because a temperature of
    0.1 makes the rounding of bfloat16 visible.

    >>> predictions = torch.tensor([[0.5, 0.0], [0.0, 7.0]])
    >>> groups = torch.tensor([[0.2, 0.0], [0.0, 0.2]])
    >>> round(group_contrast(predictions, groups, torch.tensor([0, 0]), temperature=1.0).item(), 4)
    0.8133
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: the softmax needs it above 0; the paper's is 0.1")
    with torch.autocast(predictions.device.type, enabled=False):
        similarities = normalize(at_least_float32(predictions), dim=-1) @ normalize(groups, dim=-1).T
    rows = similarities.flatten(0, -2)
    return cross_entropy(rows / temperature, labels.repeat(len(rows) // len(labels)))
