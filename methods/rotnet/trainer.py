"""RotNet (Gidaris et al., ICLR 2018; thesis 2.2.3), top to bottom: network, loss."""

import torch
from torch.nn.functional import cross_entropy

from methods.data.loader import Batch
from methods.engine.trainer import Loss, Trainer
from methods.parts.heads import Headed
from methods.rotnet.spec import ROTATIONS


class Network(Headed):
    """uint8 [B, C, H, W] -> scores of the angles [B, 4]."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.backbone(images)))


class RotNet(Trainer):
    """Predict by which of 4 angles an image was turned; all four turns of one crop are in one batch."""

    network_type = Network

    def loss(self, batch: Batch, step: int) -> Loss:
        """Cross-entropy over the 4 angles, mean over 4 B inputs (Gidaris et al., Eqs. 2-3)."""
        images = self.images(batch)
        turned = torch.cat([torch.rot90(images, angle, (2, 3)) for angle in range(ROTATIONS)])
        target = torch.arange(ROTATIONS, device=images.device).repeat_interleave(len(images))
        scores = self.network(turned)
        loss = cross_entropy(scores.float(), target)
        return loss, {"accuracy": (scores.detach().argmax(1) == target).float().mean()}
