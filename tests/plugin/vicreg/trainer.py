"""VICReg (Bardes, Ponce, LeCun, ICLR 2022), top to bottom: network, loss, optimiser."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import mse_loss

from methods.data.loader import Batch
from methods.engine.collapse import Watched, likeness
from methods.engine.trainer import Loss, Trainer
from methods.parts import optim
from methods.parts.collectives import differentiable_sum, world_size
from methods.parts.heads import Headed
from methods.parts.losses import at_least_float32

GAMMA, EPSILON = 1.0, 1e-4  # the least standard deviation, and what keeps its gradient finite (4.2)


class Network(Headed):
    """Views, float [B, C, S, S] each -> embeddings [V, B, d]. Batch statistics are of one view (released code)."""

    def forward(self, views: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack([self.expander(self.backbone(images)) for images in views])


class VICReg(Trainer):
    """Two views of an image get the same embedding, whose dimensions vary over images and are not correlated."""

    network_type = Network
    watched = Watched(alike="likeness")

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eq. 6, with the divisors of the released code: the invariance is a mean over dimensions, too, and the
        variance one over views."""
        config = self.config
        z = at_least_float32(self.network(self.crops(batch)[0].chunk(config.global_crops)))
        with torch.autocast(self.device.type, enabled=False):
            covariances = covariance(z)
            terms = {
                "invariance": mse_loss(z[0], z[1]),  # Eq. 5
                "variance": too_narrow(covariances),
                "covariance": correlated(covariances),
            }
        loss = sum(getattr(config, name) * term for name, term in terms.items())
        return loss, {name: term.detach() for name, term in terms.items()} | {"likeness": likeness(z[0].detach())}

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Biases and normalisations neither decay nor adapt (released code)."""
        return optim.make(self.config, optim.parameter_groups([network], weight_decay=self.config.weight_decay))


def covariance(z: torch.Tensor) -> torch.Tensor:
    """Embeddings [V, B, d] -> the covariance matrix of each view over the n images of all ranks, [V, d, d] (Eq. 3)."""
    n = z.shape[1] * world_size()
    centred = z - differentiable_sum(z.sum(1, keepdim=True)) / n
    return differentiable_sum(centred.mT @ centred) / (n - 1)


def too_narrow(covariances: torch.Tensor) -> torch.Tensor:
    """By how much the standard deviations on the diagonals of [V, d, d] are below gamma, the mean (Eqs. 1 and 2)."""
    deviations = (covariances.diagonal(dim1=1, dim2=2) + EPSILON).sqrt()
    return torch.relu(GAMMA - deviations).mean()


def correlated(covariances: torch.Tensor) -> torch.Tensor:
    """The squares off the diagonals of [V, d, d]: their sum over d (Eq. 4), added up over views."""
    apart = covariances - torch.diag_embed(covariances.diagonal(dim1=1, dim2=2))
    return apart.square().sum() / covariances.shape[-1]
