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
def follow(teacher: nn.Module, student: nn.Module, momentum: float, *, buffers: bool = False) -> None:
    """teacher <- momentum teacher + (1 - momentum) student, parameter by parameter (thesis 5.3.1).

    Both as they were built, not wrapped for training in parallel. buffers: also the running statistics of batch
    normalisation, whose counts are copied; DINO, MoCo and BYOL leave the teacher its own. Raises ValueError where the
    networks are not alike.
    """
    slow, fast = list(teacher.parameters()), list(student.parameters())
    if buffers:
        pairs = list(zip(teacher.buffers(), student.buffers(), strict=True))
        for mine, theirs in pairs:
            if not mine.is_floating_point():
                mine.copy_(theirs)
        slow += [mine for mine, _ in pairs if mine.is_floating_point()]
        fast += [theirs for mine, theirs in pairs if mine.is_floating_point()]
    if [each.shape for each in slow] != [each.shape for each in fast]:
        raise ValueError("teacher and student are not alike")
    torch._foreach_lerp_(slow, fast, 1 - momentum)
