"""A second network that follows the first: DINO's teacher, BYOL's target, the momentum encoders of MoCo and SMoG."""

import torch
from torch import nn


@torch.no_grad()
def begin(teacher: nn.Module, student: nn.Module) -> None:
    """Give `teacher` the parameters and buffers of `student`, and no gradients. It may differ in what has no state,
    such as dropped paths. Raises RuntimeError where names or shapes differ."""
    teacher.load_state_dict(student.state_dict(), strict=True)
    teacher.requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """teacher <- momentum teacher + (1 - momentum) student, parameter by parameter (thesis 5.3.1). Buffers are the
    teacher's own: DINO, MoCo and BYOL leave it its running statistics.

    Both as they were built, not wrapped for training in parallel. Raises ValueError where they are not alike.
    """
    slow, fast = list(teacher.parameters()), list(student.parameters())
    if [each.shape for each in slow] != [each.shape for each in fast]:
        raise ValueError("teacher and student are not alike")
    torch._foreach_lerp_(slow, fast, 1 - momentum)
