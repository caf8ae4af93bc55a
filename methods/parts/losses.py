"""What losses over several views of an image share."""

import torch
from torch.nn.functional import normalize


def over_other_views(targets: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    """The mean of <t, x'> over images and pairs of different views (x, x'): the sums of thesis Eqs. 4.6 and 5.3 over
    their number of terms, A (V - 1). With log-probabilities as outputs, minus the cross-entropy.

    targets: [A, B, K], of the first A views; outputs: [V, B, K], of all V > 1 views, in the same order. Returns a
    scalar.

    >>> over_other_views(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[5.0, 5.0]], [[1.0, 7.0]], [[3.0, 7.0]]])).item()
    2.0
    """
    views = len(outputs)
    if views < 2:
        raise ValueError(f"outputs: {views} view; there is no other one to predict from; give 2 or more")
    total = outputs.sum(0)
    pairs = [(t * (total - own)).sum(-1).mean() for t, own in zip(targets, outputs[: len(targets)], strict=True)]
    return torch.stack(pairs).mean() / (views - 1)


def mean_square(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """|| x' / |x'| - t / |t| ||^2 = 2 - 2 <x', t> / (|x'| |t|), mean over images and pairs of different views, as in
    `over_other_views`: BYOL, Eq. 2, and the MSE of thesis Tables 5.9 and 5.11.

    outputs: floating point [V, B, K]; targets: [A, B, K], of the first A views, detached here. Computed in float32 at
    least; an output that is all 0 has a cosine of 0. Returns a scalar, 0 to 4.

    >>> mean_square(torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]]), torch.tensor([[[2.0, 0.0]]])).item()
    2.0
    """
    outputs, targets = at_least_float32(outputs), at_least_float32(targets.detach())
    return 2 - 2 * over_other_views(normalize(targets, dim=-1), normalize(outputs, dim=-1))


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """-sum_i p_i log p_i in nats of each row [..., K] -> [...]; 0 log 0 is 0.

    >>> entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [0.0, 0.6931471824645996]
    """
    return torch.special.entr(probabilities).sum(-1)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, the rest as it is: what a temperature divides must not be rounded before."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
