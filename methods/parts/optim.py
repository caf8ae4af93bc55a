"""What the published recipes do to gradients that torch's optimisers do not: LARS, groups without decay, clipping.

A group of parameters may say `lr_scale` (the engine sets its lr to that share of the schedule's) and `decays` (False:
`set_weight_decay` leaves it alone).
"""

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import nn

from launcher.spec.schema import TrainConfig

# Of transformers, beside biases and norms: what timm's `no_weight_decay` names, which DeiT's released code asks.
UNDECAYED = ("cls_token", "pos_embed", "relative_position_bias_table")


def make(
    config: TrainConfig, parameters: Iterable[nn.Parameter] | list[dict[str, Any]], **lars: Any
) -> torch.optim.Optimizer:
    """The optimiser that `config.optimizer` names, lars | adamw | sgd; sgd where the config has no such field.

    parameters: that train, or groups of them (`parameter_groups`), which say their own decay. lars: options of LARS.
    Raises ValueError for another name.
    """
    momentum = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
    match name := getattr(config, "optimizer", "sgd"):
        case "lars":
            return LARS(parameters, **momentum, **lars)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
        case "sgd":
            return torch.optim.SGD(parameters, **momentum)
    raise ValueError(f"optimizer={name}: no such optimiser here; override the trainer's `optimizer`")


def parameter_groups(
    modules: Iterable[nn.Module], *, weight_decay: float, exempt: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Two groups of the parameters of `modules` that train: those that decay, and biases and the like, which have one
    dimension and do not; LARS also leaves the latter their plain gradient.

    So do AdamW in DINO's and LARS in SimCLR's and BYOL's recipes. exempt: last parts of the names of others that do not
    decay, such as "pos_embed". An empty group is left out.
    """
    named = [(name, p) for module in modules for name, p in module.named_parameters() if p.requires_grad]
    parted: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in named:
        parted[parameter.ndim > 1 and name.rpartition(".")[2] not in exempt].append(parameter)
    groups = (
        {"params": parted[True], "weight_decay": weight_decay, "decays": True},
        {"params": parted[False], "weight_decay": 0.0, "decays": False, "adapts": False},
    )
    return [group for group in groups if group["params"]]


def set_weight_decay(optimizer: torch.optim.Optimizer, value: float) -> None:
    """In all groups but those that never decay: for a schedule, before each step."""
    for group in optimizer.param_groups:
        if group.get("decays", True):
            group["weight_decay"] = value


@torch.no_grad()
def clip_each(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale each gradient whose own L2 norm is above `largest` down to it (DINO's recipe: 3.0)."""
    grads = [p.grad for p in parameters if p.grad is not None]
    if grads:
        scales = torch.stack(torch._foreach_norm(grads)).add_(1e-6).reciprocal_().mul_(largest).clamp_(max=1)
        torch._foreach_mul_(grads, list(scales.unbind()))


def drop_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Leave `parameters` as they are in this step: neither momentum nor weight decay move them either."""
    for parameter in parameters:
        parameter.grad = None


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose rate adapts to each layer (You, Gitman & Ginsburg 2017, Algorithm 1).

        g <- trust |w| / (|g| + decay |w| + eps) (g + decay w)
        v <- momentum v + g,  w <- w - lr v

    Where |w| or |g| is 0, and in groups with `adapts=False`, the gradient stays as it is but for the decay of such a
    group: biases that begin at 0 take the plain rate. The rate is never clipped from above. Released SwAV adapts all
    parameters, so its group is `[{"params": ...}]`; SimCLR and BYOL leave out what `parameter_groups` does.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        eps: float = 1e-8,
        lr_in_momentum: bool = False,
    ):
        """lr_in_momentum: v <- momentum v + lr g, w <- w - v, as the paper and SimCLR have it: a rate that changes acts
        on new gradients alone. SwAV's LARS multiplies v, as torch's SGD does."""
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "eps": eps,
            "lr_in_momentum": lr_in_momentum,
            "adapts": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self) -> None:
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._step(group, weights)

    def _step(self, group: dict[str, Any], weights: list[nn.Parameter]) -> None:
        rate, momentum = group["lr"], group["momentum"]
        inside = rate if group["lr_in_momentum"] else 1.0
        updates = _adapted(group, weights) if group["adapts"] else _decayed(group, weights)
        moving = []
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            moving.append(self.state[weight]["momentum_buffer"])
        torch._foreach_mul_(moving, momentum)
        torch._foreach_add_(moving, updates, alpha=inside)
        torch._foreach_add_(weights, moving, alpha=-1.0 if group["lr_in_momentum"] else -rate)


def _adapted(group: dict[str, Any], weights: list[nn.Parameter]) -> list[torch.Tensor]:
    """Gradients at the rates of their layers. No value travels to the host."""
    grads, decay = [weight.grad for weight in weights], group["weight_decay"]
    of_weights, of_grads = torch.stack(torch._foreach_norm(weights)), torch.stack(torch._foreach_norm(grads))
    both = (of_weights > 0) & (of_grads > 0)
    rates = group["trust"] * of_weights / (of_grads + decay * of_weights + group["eps"])
    rates, decays = torch.where(both, rates, 1.0), torch.where(both, decay, 0.0)
    updates = torch._foreach_mul(weights, list(decays.unbind()))
    torch._foreach_add_(updates, grads)
    torch._foreach_mul_(updates, list(rates.unbind()))
    return list(updates)


def _decayed(group: dict[str, Any], weights: list[nn.Parameter]) -> list[torch.Tensor]:
    return list(torch._foreach_add([weight.grad for weight in weights], weights, alpha=group["weight_decay"]))
