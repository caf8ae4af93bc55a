"""What becomes of the teacher's output before it is a target: centring and sharpening, or what Table 5.10 compares
them with (thesis 5.3.1, 5.6.1)."""

from collections.abc import Mapping
from typing import Any

import torch

from methods.dino.spec import OPERATIONS, OVER_THE_BATCH
from methods.parts.collectives import sum_over_ranks
from methods.parts.losses import at_least_float32
from methods.parts.sinkhorn import one_hot, sinkhorn


class Centre:
    """c of Eq. 5.4, the moving average of the teacher's outputs over all ranks; float32 [K], starts at 0.

    momentum: m, 0 <= m < 1; at 0.999 training collapses, from 0 to 0.99 it does not (Table 5.13).

    >>> centre = Centre(2, momentum=0.75)
    >>> centre.update(torch.tensor([[[4.0, 0.0], [8.0, 4.0]]]))
    >>> centre.value.tolist()
    [1.5, 0.5]
    """

    def __init__(self, classes: int, *, momentum: float = 0.9, device: torch.device | str = "cpu"):
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}: the centre would not follow; give 0 to below 1, the paper's is 0.9")
        self.value = torch.zeros(classes, device=device)
        self._momentum = momentum

    @torch.no_grad()
    def update(self, outputs: torch.Tensor) -> None:
        """c <- m c + (1 - m) mean of g_t over views, images and ranks (Eq. 5.4), after the loss that used c.

        outputs: the teacher's, before centring, floating point [..., K]. Collective.
        """
        rows = outputs.detach().float().flatten(0, -2)
        total = torch.cat([rows.sum(0), rows.new_full((1,), len(rows))])
        sum_over_ranks(total)
        self.value.lerp_(total[:-1] / total[-1], 1 - self._momentum)

    def state(self) -> Mapping[str, Any]:
        return {"value": self.value}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.value.copy_(state["value"])


@torch.no_grad()
def teacher_targets(
    outputs: torch.Tensor,
    centre: torch.Tensor,
    *,
    temperature: float,
    operation: str = "centring",
    iterations: int = 3,
) -> torch.Tensor:
    """P_t of Eq. 5.1 from the teacher's outputs: float32 [A, B, K], each row sums to 1, without gradient.

    outputs: g_t, floating point [A, B, K]; centre: c, [K]. operation, the rows of Table 5.10 and one more:
    "centring": softmax((g_t - c) / temperature), as Algorithm 1 (the text before Eq. 5.4 writes + c, which would push
    away from what Eq. 5.4 averages); "none": without c, the sharpening alone (5.6.3); "softmax": over the images of all
    ranks, then each row divided by its sum, which is one Sinkhorn iteration (4.2.2); "sinkhorn": `iterations` of them,
    over each view. The last two are collective. temperature: tau_t; for the first two, 0 is the argmax, one-hot (Table
    5.12). Raises ValueError for an unknown operation or a temperature that it cannot use.

    >>> outputs, centre = torch.tensor([[[5.0, 4.0], [5.0, 0.0]]]), torch.tensor([5.0, 2.0])
    >>> teacher_targets(outputs, centre, temperature=0).tolist()
    [[[0.0, 1.0], [1.0, 0.0]]]
    """
    if operation not in OPERATIONS:
        raise ValueError(f"operation={operation}: no such choice; use {', '.join(OPERATIONS)}")
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature}: a softmax has none below 0; give 0 for the argmax, or more")
    outputs = at_least_float32(outputs)
    if operation in OVER_THE_BATCH:
        if temperature == 0:
            raise ValueError(f"temperature=0: {operation} has no argmax; give more than 0, or operation=centring")
        rounds = 1 if operation == "softmax" else iterations
        return sinkhorn(outputs, epsilon=temperature, iterations=rounds)
    centred = outputs - centre if operation == "centring" else outputs
    return torch.softmax(centred / temperature, dim=-1) if temperature else one_hot(centred)
