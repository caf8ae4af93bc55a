"""MoCo's loss: a query is to find its key among those of other images (He et al. 2020, 3.1)."""

import torch
from torch.nn.functional import cross_entropy

from methods.parts.losses import at_least_float32


def info_nce(
    queries: torch.Tensor, keys: torch.Tensor, queue: torch.Tensor, *, temperature: float = 0.2
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Eq. 1: -log exp(q.k+ / temperature) / sum_i exp(q.k_i / temperature), over k+ and the K keys of the queue, mean
    over this rank's images and their queries.

    queries: q, floating point [V, B, d]; keys: k+, [B, d] of the same images; queue: [K, d], both without gradient.
    Returns (a float32 scalar, detached scalars: `found`, the share of queries that are nearer to their key than to any
    other one, and `positive`, the mean of q.k+). Raises ValueError unless temperature > 0.

    >>> one, other = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> loss, figures = info_nce(one.view(1, 1, 2), one.view(1, 2), other.view(1, 2), temperature=1.0)
    >>> round(loss.item(), 4), figures["found"].item()  # ln(1 + 1/e)
    (0.3133, 1.0)
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: similarities are divided by it; give more than 0, as 0.2")
    with torch.autocast(queries.device.type, enabled=False):  # bf16 would be off by 2 %
        q, k, others = (at_least_float32(x) for x in (queries, keys.detach(), queue.detach()))
        positive = (q * k).sum(-1, keepdim=True)  # q.k+: [V, B, 1]
        logits = torch.cat([positive, q @ others.T], dim=-1).flatten(0, 1)  # [V B, 1 + K], the positive first
        first = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        loss = cross_entropy(logits / temperature, first)
    found = (logits[:, 1:] < logits[:, :1]).all(-1).float().mean()
    return loss, {"found": found, "positive": positive.detach().mean()}
