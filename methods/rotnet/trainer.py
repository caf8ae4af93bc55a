"""RotNet (Gidaris et al., ICLR 2018; thesis 2.2.3), top to bottom: networks, views, loss."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from launcher.runtime.stateful import ModuleState, OptimizerState
from methods import backbones
from methods.augment.views import TrainView
from methods.data.loader import Batch
from methods.engine.initialise import load_backbone
from methods.engine.job import Job
from methods.parts.batchnorm import synchronise
from methods.rotnet.spec import ROTATIONS


class Network(nn.Module):
    """uint8 [B, C, H, W] -> scores of the angles [B, 4]."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.feature_dim, ROTATIONS)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.backbone(images)))


class RotNet:
    """Predict by which of 4 angles an image was turned; all four turns of one crop are in one batch."""

    def __init__(self, job: Job):
        self.job, config = job, job.config
        torch.manual_seed(job.seed_for("network"))
        network = Network(backbones.build(config.backbone, dropout=config.dropout))
        load_backbone(network.backbone, job)
        self.backbone = network.backbone
        self.network = job.distribute(synchronise(network, job.world, job.layout.batch_norm_ranks))
        self.networks = [self.network]
        optimizer = torch.optim.SGD(
            network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
        )
        self.optimizers = [optimizer]
        self.steps_per_epoch = len(job.dataset) // config.global_batch
        job.owners.add("network", ModuleState(network))
        job.owners.add("optimizer", OptimizerState(optimizer, dict(network.named_parameters())))

    def begin_epoch(self, epoch: int) -> None:
        """Nothing happens between epochs."""

    def steps(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        view = TrainView(self.job.spec.seed, self.job.config.image_size, self.job.config.crop_scale)
        return self.job.batches_in_turn(view, epoch, first, self.steps_per_epoch)

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Cross-entropy over the 4 angles, mean over 4 B inputs (Gidaris et al., Eqs. 2-3)."""
        images = batch.images.to(self.job.world.device, non_blocking=True)
        turned = torch.cat([torch.rot90(images, angle, (2, 3)) for angle in range(ROTATIONS)])
        target = torch.arange(ROTATIONS, device=images.device).repeat_interleave(len(images))
        scores = self.network(turned)
        loss = cross_entropy(scores.float(), target)
        return loss, {"accuracy": (scores.detach().argmax(1) == target).float().mean()}

    def evaluate(self, step: int) -> dict[str, Any]:
        """RotNet has no clusters to judge."""
        return {}
