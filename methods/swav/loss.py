"""SwAV's pseudo-labels and the loss that predicts them from other views (thesis 4.2)."""

import torch

from methods.parts.losses import at_least_float32, over_other_views
from methods.parts.sinkhorn import sinkhorn


@torch.no_grad()
def pseudo_labels(
    scores: torch.Tensor,
    queued: torch.Tensor | None = None,
    *,
    epsilon: float = 0.05,
    iterations: int = 3,
    rounded: bool = False,
) -> torch.Tensor:
    """q of Eqs. 4.3 to 4.5 for the views that labels are computed of, each view a transport problem of its own over the
    images of all ranks. Collective.

    scores: z, floating point [A, B, K], of this rank's images. queued: [A, L, K], scores of the embeddings of earlier
    batches with the prototypes of now; they take part in the transport, and get no label (4.2.3). epsilon, iterations,
    rounded: see `sinkhorn`. Returns float32 [A, B, K] without gradient ("we apply a stop-gradient operator", 4.2.1).

    >>> scores = torch.tensor([[[1.0, 0.9], [1.0, 0.0]]])
    >>> pseudo_labels(scores).argmax(-1).tolist()  # equal shares: the one who likes class 1 most gets it
    [[1, 0]]
    """
    images = scores.shape[-2]
    scores = at_least_float32(scores)
    together = scores if queued is None else torch.cat([scores, queued.to(scores.dtype)], dim=-2)
    labels = sinkhorn(together, epsilon=epsilon, iterations=iterations, rounded=rounded)
    return labels[..., :images, :]


def swapped_prediction(scores: torch.Tensor, labels: torch.Tensor, *, temperature: float = 0.1) -> torch.Tensor:
    """Eq. 4.6: the cross-entropy H(q(x_t), p(x_s)), p = softmax(z / temperature) (Eqs. 4.1 and 4.2), mean over this
    rank's images and over the pairs of a view x_t with labels and another view x_s.

    scores: z, floating point [V, B, K], those with labels first; labels: q, [A, B, K]. Returns a float32 scalar. The
    paper sums over the A (V - 1) pairs; the mean is the released code's, which is what its learning rates are for.

    >>> labels = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]]])  # two views of one image
    >>> round(swapped_prediction(torch.tensor([[[0.0, 0.0]], [[0.1, 0.0]]]), labels).item(), 4)
    0.5032
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: softmax(z / temperature) needs it above 0; the paper's is 0.1")
    return -over_other_views(labels, torch.log_softmax(at_least_float32(scores) / temperature, dim=-1))
