"""MoCo-v2 (He et al. 2020; Chen et al. 2020), top to bottom: encoders, keys, loss, queue.

In comments: B images of this rank, V queries of each, K keys in the queue.
"""

import copy
from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

from methods.backbones.spec import BACKBONES
from methods.data.loader import Batch
from methods.engine.collapse import Watched, likeness
from methods.engine.job import Job
from methods.engine.trainer import Loss, Trainer
from methods.mocov2.loss import info_nce
from methods.parts import ema, optim
from methods.parts.collectives import permute_over_ranks
from methods.parts.heads import Headed
from methods.parts.memory import KeyQueue
from methods.parts.schedules import cosine


class Network(Headed):
    """f_q: crops of several resolutions, float [V_i B, C, S_i, S_i] each -> float32 [sum V_i B, d] of length 1."""

    def forward(self, crops: Sequence[torch.Tensor]) -> torch.Tensor:
        projected = self.projection(self.features(crops))
        with torch.autocast(projected.device.type, enabled=False):
            return normalize(projected.float())


class MoCoV2(Trainer):
    """A dictionary look-up: a query is to find the key that a slowly moving encoder made of another view of its image,
    among the keys of earlier batches."""

    network_type = Network
    watched = Watched(alike="likeness")

    def __init__(self, job: Job):
        super().__init__(job)
        config = self.config
        queue = KeyQueue(config.queue, config.embedding, seed=job.seed_for("queue"), device=self.device)
        self.queue = self.remember("queue", queue)
        meet = BACKBONES[config.backbone].batch_norm or self.outline.normalised
        groups = 0 < config.batch_norm_group < config.global_batch
        self.shuffles = config.shuffle and meet and groups  # where all images share statistics it would change nothing

    def build_follower(self, network: Network) -> Network:
        """f_k, which begins as f_q (Algorithm 1)."""
        return copy.deepcopy(network)

    def optimizer(self, network: Network) -> torch.optim.Optimizer:
        """SGD decays everything (released code); AdamW leaves out biases and the like, as DINO's does."""
        groups = optim.parameter_groups([network], weight_decay=self.config.weight_decay)
        return optim.make(self.config, groups if self.config.optimizer == "adamw" else network.parameters())

    def before_step(self, step: int) -> None:
        """Eq. 2, before the keys are made (released code): parameters alone, batch statistics are f_k's own."""
        config = self.config
        ema.follow(self.follower, self.module, config.encoder_momentum)
        if config.final_weight_decay is not None:
            decay = cosine(step, self.total_steps, config.weight_decay, config.final_weight_decay)
            optim.set_weight_decay(self.optimizers[0], decay)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Algorithm 1: from one global crop and the local ones, the key of the other global crop."""
        images, (large, *small) = len(batch.ids), self.crops(batch)
        for_query, for_key = large.chunk(2)
        queries = self.network([for_query, *small]).unflatten(0, (-1, images))  # q: [V, B, d]
        keys = self._keys(for_key, step)  # k+: [B, d]
        loss, figures = info_nce(queries, keys, self.queue.keys(), temperature=self.config.temperature)
        self.queue.put(keys)  # after the loss that used it
        return loss, figures | {"likeness": likeness(queries[0])}

    @torch.no_grad()
    def _keys(self, crop: torch.Tensor, step: int) -> torch.Tensor:
        """Each in the batch statistics of other images than its query's, or these would tell which of the keys is the
        right one ("Shuffling BN", 3.3): the same order of the global batch on any number of ranks."""
        if not self.shuffles:
            return self.follower([crop])
        draws = torch.Generator().manual_seed(self.job.seed_for("shuffle", step))
        order = torch.randperm(self.config.global_batch, generator=draws)
        keys = self.follower([permute_over_ranks(crop, order)])
        return permute_over_ranks(keys, order.argsort())
