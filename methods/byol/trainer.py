"""BYOL (Grill et al., NeurIPS 2020), top to bottom: online network, target, loss, what follows what.

In comments: A global crops, which the target sees, of V crops in all; B images of this rank.
"""

from collections.abc import Sequence

import torch
from torch import nn

from methods import backbones
from methods.data.loader import Batch
from methods.engine.collapse import Watched, likeness
from methods.engine.initialise import load_backbone
from methods.engine.job import Job
from methods.engine.trainer import Loss, Trainer
from methods.parts import ema, optim
from methods.parts.heads import Headed
from methods.parts.losses import mean_square
from methods.parts.schedules import cosine


class Network(Headed):
    """q(g(f(v))) of each view v, without q where there is no predictor, as in the target: float [B, C, S, S] each ->
    [V, B, d]. View by view, so that batch statistics are of one view (released code)."""

    def forward(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        projections = [self.projection(self.backbone(images)) for images in views]
        return torch.stack([self.predictor(z) for z in projections] if hasattr(self, "predictor") else projections)

    @property
    def shared(self) -> nn.ModuleList:
        """What the target has, too."""
        return nn.ModuleList([self.backbone, self.projection])


class BYOL(Trainer):
    """No image is told from another: the online network predicts the target, which follows it."""

    network_type = Network
    saved_as = ("network", "target")  # "at the end of training, we only keep the encoder f_theta"
    watched = Watched(alike="likeness")

    def __init__(self, job: Job):
        super().__init__(job)
        self.online, self.target = self.module, self.follower  # `network` is the first as it is called in training

    def build_follower(self, online: Network) -> Network:
        """Initialised differently (released code), but for a backbone of `init_from`, which both have."""
        backbone = backbones.build(self.config.backbone, zero_init_residual=self.config.zero_init_residual)
        target = Network(backbone, {"projection": self.outline.heads["projection"]})
        load_backbone(target.backbone, self.job)
        return target

    def optimizer(self, online: Network) -> torch.optim.Optimizer:
        """Biases and norms neither decay nor adapt (Appendix A); LARS' rate is outside of its momentum (released)."""
        return optim.make(self.config, optim.parameter_groups([online], weight_decay=self.config.weight_decay))

    def before_step(self, step: int) -> None:
        """Weight decay moves with time, or stays."""
        first, last = self.config.weight_decay, self.config.final_weight_decay
        if last is not None:
            optim.set_weight_decay(self.optimizers[0], cosine(step, self.total_steps, first, last))

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eq. 2 with each global crop as the target's view, and their sum: of two views both directions."""
        views = [view for crops in self.crops(batch) for view in crops.split(len(batch.ids))]
        with torch.no_grad():
            targets = self.target(views[: self.config.global_crops])  # z' = g_xi(f_xi(v')): [A, B, d]
        predictions = self.network(views)  # q_theta(z): [V, B, d], the global crops first
        loss = len(targets) * mean_square(predictions, targets)
        return loss, {"likeness": likeness(predictions[0])}

    def after_backward(self, step: int) -> None:
        if self.config.clip is not None:
            optim.clip_each(self.online.parameters(), self.config.clip)

    def after_step(self, step: int) -> None:
        """Eq. 1: xi <- tau xi + (1 - tau) theta, tau = 1 - (1 - tau_base) (cos(pi k / K) + 1) / 2; no buffers."""
        tau = cosine(step, self.total_steps, self.config.target_momentum, 1.0)
        ema.follow(self.target.shared, self.online.shared, tau)
