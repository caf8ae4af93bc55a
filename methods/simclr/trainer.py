"""SimCLR (Chen et al., ICML 2020), top to bottom: network, loss, optimiser."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from methods.data.loader import Batch
from methods.engine.collapse import Watched, likeness
from methods.engine.trainer import Loss, Trainer
from methods.parts import optim
from methods.parts.heads import Headed
from methods.simclr.loss import nt_xent


class Network(Headed):
    """Crops of several resolutions, float [V_i B, C, S_i, S_i] each -> (z = g(f(x)) [sum V_i B, d], f(x) without
    gradient) (section 2.1). Both views of an image share batch statistics, as in the released code."""

    def forward(self, crops: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.features(crops)
        return self.projection(features), features.detach()


class SimCLR(Trainer):
    """A crop is to find the other crop of its image among the crops of all images of a batch."""

    network_type = Network
    watched = Watched(alike="likeness")

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eq. 1 for every pair of crops of an image; all other images are negatives (Algorithm 1)."""
        config, images = self.config, len(batch.ids)
        z, features = self.network(self.crops(batch))
        z = z.unflatten(0, (-1, images))  # V crops of B images: [V, B, d]
        loss = nt_xent(z, temperature=config.temperature, summed=config.directions == "sum")
        a, b = z[:2].detach().float()
        # Batch normalisation draws embeddings apart where features are alike, and not where they are on a line.
        alike = torch.maximum(likeness(features[:images]), likeness(a))
        return loss, {"likeness": alike, "agreement": cosine_similarity(a, b).mean()}

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Biases and norms neither decay nor adapt, and the rate is within LARS' momentum (released code)."""
        parameters = optim.parameter_groups([network], weight_decay=self.config.weight_decay)
        return optim.make(self.config, parameters, lr_in_momentum=True)
