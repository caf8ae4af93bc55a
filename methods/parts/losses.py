"""What losses over several views of an image share."""

import torch
from torch.nn.functional import cross_entropy, normalize

from methods.parts.collectives import sum_over_ranks, world_size

NO_LABEL = -100  # of a sample that a loss leaves out


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


def label_prediction(scores: torch.Tensor, labels: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """-log p of an image's label in each of its crops, p = softmax(z / temperature) (thesis Eqs. 3.1 and 4.1): the mean
    over crops, heads, and those of all ranks' images that have a label. Collective.

    scores: z, floating point [V, B, H, K], of this rank's images; labels: y, int64 [B, H], NO_LABEL where there is
    none. Returns a float32 scalar (float64 for float64) whose mean over the ranks is that mean, and so are gradients.
    Where no image has a label it is 0. Raises ValueError unless temperature > 0.

    >>> scores = torch.tensor([[[[0.1, 0.0]], [[0.0, 5.0]]]])  # one crop of two images, one head
    >>> round(label_prediction(scores, torch.tensor([[0], [NO_LABEL]]), temperature=0.1).item(), 4)
    0.3133
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: softmax(z / temperature) needs it above 0; the paper's is 0.1")
    z = at_least_float32(scores) / temperature
    y = labels.expand(z.shape[:-1])
    total = cross_entropy(z.flatten(0, -2), y.flatten(), ignore_index=NO_LABEL, reduction="sum")
    terms = sum_over_ranks((y != NO_LABEL).sum())  # over all ranks: one that has fewer weighs less
    return total * world_size() / terms.clamp(min=1)


def entropy(probabilities: torch.Tensor) -> torch.Tensor:
    """-sum_i p_i log p_i in nats of each row [..., K] -> [...]; 0 log 0 is 0.

    >>> entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [0.0, 0.6931471824645996]
    """
    return torch.special.entr(probabilities).sum(-1)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, the rest as it is: what a temperature divides must not be rounded before."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
