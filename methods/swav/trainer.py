"""SwAV (thesis chapter 4), top to bottom: networks, views, labels, loss, queue."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import normalize

from launcher.runtime.stateful import ModuleState, OptimizerState
from methods import backbones
from methods.augment.stage import Photometrics
from methods.augment.views import MultiCropView
from methods.backbones.recompute import recompute_blocks
from methods.data.loader import Batch
from methods.engine.collapse import Watched, entropy_of_use, likeness
from methods.engine.initialise import load_backbone
from methods.engine.job import Job
from methods.parts.batchnorm import synchronise
from methods.parts.heads import Prototypes, perceptron
from methods.parts.layout import memory_parts
from methods.parts.losses import entropy
from methods.parts.optim import LARS, drop_gradients
from methods.swav.loss import pseudo_labels, swapped_prediction
from methods.swav.queue import as_one_batch, make_queue
from methods.swav.spec import SwAVConfig


class Network(nn.Module):
    """Crops of several resolutions, float [V_i B, C, S_i, S_i] each -> (embeddings of length 1 [sum V_i B, d], their
    products with the prototypes [sum V_i B, K]), float32."""

    def __init__(self, backbone: nn.Module, config: SwAVConfig):
        super().__init__()
        self.backbone = backbone
        widths = [backbone.feature_dim, *[config.hidden] * (config.head_layers - 1), config.embedding]
        self.projection = perceptron(widths, batch_norm=config.head_batch_norm)
        self.prototypes = Prototypes(config.embedding, config.prototypes)  # C, Eq. 4.2

    def forward(self, crops: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        # One pass of the backbone a resolution, one of the head over all crops.
        projected = self.projection(torch.cat([self.backbone(images) for images in crops]))
        # In fp32: a score is divided by 0.05, and bf16 would be off by 8 %.
        with torch.autocast(projected.device.type, enabled=False):
            embeddings = normalize(projected.float())
            return embeddings, self.prototypes(embeddings)


class SwAV:
    """Online clustering: the views of an image are to fall into one cluster, and all clusters to be of one size."""

    def __init__(self, job: Job):
        self.job, config, world = job, job.config, job.world
        torch.manual_seed(job.seed_for("network"))
        network = Network(backbones.build(config.backbone, dropout=config.dropout), config)
        load_backbone(network.backbone, job)
        self.backbone, self.prototypes = network.backbone, network.prototypes
        if config.checkpoint_activations:
            recompute_blocks(config.backbone, network.backbone.trunk)
        self.network = job.distribute(synchronise(network, world, job.layout.batch_norm_ranks))
        self.networks = [self.network]
        use, single = "prototype_entropy", "prediction_entropy"
        self.watched = Watched(config.prototypes, use=use, single=single, alike="likeness")
        self.photometrics = Photometrics(config)
        kind = LARS if config.optimizer == "lars" else torch.optim.SGD
        optimizer = kind(network.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
        self.optimizers = [optimizer]
        self.steps_per_epoch = len(job.dataset) // config.global_batch
        self.queue = None
        if config.queue:
            self.queue = make_queue(
                config.queue,
                global_batch=config.global_batch,
                world_size=world.size,
                views=config.global_crops,
                features=config.embedding,
                device=world.device,
            )
            parts = memory_parts(config.global_batch)
            for number, part in self.queue.parts(parts, world.rank, world.size).items():
                job.owners.add(f"queue_{number:03d}", part, shard=f"queue_{number:03d}", writes=True)
        job.owners.add("network", ModuleState(network))
        job.owners.add("optimizer", OptimizerState(optimizer, dict(network.named_parameters())))

    def begin_epoch(self, epoch: int) -> None:
        """From an epoch on that follows from the config the queue is filled."""
        self.fills_queue = self.queue is not None and epoch >= self.job.config.queue_epoch

    def steps(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        view = MultiCropView.of(self.job.config, self.job.spec.seed)
        return self.job.batches_in_turn(view, epoch, first, self.steps_per_epoch)

    def before_step(self, step: int) -> None:
        """Before every forward pass the prototypes get length 1 (released code)."""
        self.prototypes.normalise()

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Eqs. 4.1 to 4.6: the global crops' labels, predicted from every other crop."""
        config = self.job.config
        crops = self.photometrics(batch.images.to(self.job.world.device, non_blocking=True))
        embeddings, scores = self.network(crops)
        images = len(batch.ids)
        embeddings, scores = embeddings.unflatten(0, (-1, images)), scores.unflatten(0, (-1, images))  # z: [V, B, K]
        labels = pseudo_labels(
            scores[: config.global_crops].detach(),
            self._queued(),
            epsilon=config.epsilon,
            iterations=config.sinkhorn_iterations,
            rounded=config.assignment == "rounded",
        )
        if self.fills_queue:
            self.queue.put(embeddings[: config.global_crops].detach())
        used = torch.softmax(scores.detach() / config.temperature, dim=-1)
        loss = swapped_prediction(scores, labels, temperature=config.temperature)
        figures = {"prototype_entropy": entropy_of_use(used), "prediction_entropy": entropy(used).mean()}
        return loss, figures | {"likeness": likeness(embeddings[0])}

    @torch.no_grad()
    def _queued(self) -> torch.Tensor | None:
        """Scores of the queue with the prototypes of now, [A, L, K], once it is full (4.2.3)."""
        if self.queue is None or not self.queue.full:
            return None
        with torch.autocast(self.job.world.device.type, enabled=False):
            return self.prototypes(as_one_batch(self.queue.newest_first()))

    def after_backward(self, step: int) -> None:
        """In the first epoch the prototypes stay as they are: neither decay nor momentum moves them."""
        if step < self.job.config.freeze_epochs * self.steps_per_epoch:
            drop_gradients(self.prototypes.parameters())

    def evaluate(self, step: int) -> dict[str, Any]:
        """Prototypes are judged in every step."""
        return {}
