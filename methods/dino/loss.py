"""DINO's loss: the student predicts the teacher's output for another view (thesis 5.3.1)."""

import torch

from methods.parts.losses import at_least_float32, entropy, over_other_views


def distillation(
    outputs: torch.Tensor, targets: torch.Tensor, *, temperature: float = 0.1
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Eq. 5.3: the cross-entropy H(P_t(x), P_s(x')), P_s = softmax(g_s / temperature) (Eqs. 5.1 and 5.2), mean over
    this rank's images and over the pairs of a global view x and another view x'.

    outputs: the student's g_s, floating point [V, B, K], the global views first; targets: P_t, [A, B, K], of
    `teacher_targets`. temperature: tau_s > 0. Returns (a float32 scalar, what Figure 5.8 shows). Eq. 5.5 takes the loss
    apart: `teacher_entropy` h(P_t), from 0 (one-hot) to ln K (uniform), and `teacher_kl` D_KL(P_t | P_s), which goes to
    0 when outputs collapse; both detached scalars in nats. Eq. 5.3 sums over the A (V - 1) pairs; the mean is that of
    Algorithm 1 and of the released code.

    >>> targets = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]])  # two views of one image
    >>> loss, figures = distillation(torch.tensor([[[0.0, 0.0]], [[0.1, 0.0]]]), targets)
    >>> [round(value.item(), 4) for value in (loss, figures["teacher_entropy"], figures["teacher_kl"])]
    [0.5032, 0.3466, 0.1566]
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}: the student's softmax needs it above 0; the paper's is 0.1")
    loss = -over_other_views(targets, torch.log_softmax(at_least_float32(outputs) / temperature, dim=-1))
    spread = entropy(targets.detach()).mean()
    return loss, {"teacher_entropy": spread, "teacher_kl": loss.detach() - spread}
