"""SMoG (Pang et al., ECCV 2022), top to bottom: network, f-hat, groups, loss, what keeps groups from collapsing."""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from launcher.kmeans import cluster_entropy, cluster_sizes, sharded_nmi
from methods.augment.views import MultiCropView
from methods.data.loader import Batch
from methods.engine.collapse import Watched, empty_share, likeness, use_of_classes
from methods.engine.features import extract
from methods.engine.job import Job
from methods.engine.trainer import Loss, Trainer
from methods.parts import ema, optim
from methods.parts.heads import Headed
from methods.parts.losses import entropy
from methods.parts.memory import Memory
from methods.parts.schedules import linear
from methods.smog.groups import Groups
from methods.smog.loss import group_contrast


class Network(Headed):
    """f_theta: a global crop of each image and local ones, view after view, float [V_i B, C, S_i, S_i] by resolution ->
    (projections of the global crop [B, d], predictions of all crops [V B, d])."""

    def forward(self, crops: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        # A pass a resolution, so that global crops share batch statistics with global crops alone, as f-hat's do.
        projections = [self.projection(self.backbone(images)) for images in crops]
        return projections[0], torch.cat([self.predictor(each) for each in projections])


class SMoG(Trainer):
    """Groups of instances move with the instances, step by step; an image is to be near the group of its other view."""

    network_type = Network

    def __init__(self, job: Job):
        super().__init__(job)
        config = self.config
        options = {"algorithm": config.algorithm, "seed": job.seed_for("groups"), "device": self.device}
        self.groups = Groups(config.groups, config.embedding, **options)
        job.owners.add("groups", self.groups)
        self.cache = None
        if config.refit_every:
            shape = config.global_batch // self.world.size, config.embedding
            self.cache = self.remember("cache", Memory(config.cache, shape, device=self.device))
        told = {"use": "group_entropy", "alike": "likeness", "hit": "groups_hit"}
        self.watched = Watched(config.groups, **told, images=config.global_batch)

    def build_follower(self, network: Network) -> nn.Module:
        """f-hat has no predictor: the text of 3.4 says it has, but in 3.2 its layers are some of f_theta's."""
        return copy.deepcopy(self.online)

    @property
    def online(self) -> nn.Sequential:
        """What f-hat follows, and groups are made of."""
        return nn.Sequential(self.module.backbone, self.module.projection)

    def optimizer(self, network: Network) -> torch.optim.Optimizer:
        """Biases and norms neither decay nor adapt. The rate is within LARS' momentum, as in its paper and in SimCLR,
        whose rate and decay SMoG has."""
        parameters = optim.parameter_groups([network], weight_decay=self.config.weight_decay)
        return optim.make(self.config, parameters, lr_in_momentum=True)

    def view(self) -> MultiCropView:
        view = super().view()
        if self.config.asymmetric:
            return view
        large, *small = view.resolutions
        large = dataclasses.replace(large, recipes=large.recipes[:1] * self.config.global_crops)
        return dataclasses.replace(view, resolutions=(large, *small))

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eqs. 3 and 4: from one global crop and from the local ones, the group that the other global crop falls to."""
        config = self.config
        large, *small = self.crops(batch)
        both = large.chunk(2)  # the crops with the one augmentation, and those with the other
        a, b = both[step % 2], both[1 - step % 2]  # the streams take turns (3.4)
        projections, predictions = self.network([a, *small])
        with torch.no_grad():
            others = self.follower(b)
        if step == 0 and config.global_batch >= config.groups:
            # "initialized with the K-means algorithm" (3.4); f-hat still is the network.
            self._refit(others.unsqueeze(0), step)
        labels = self.groups.assign(others)
        beta = linear(step, self.total_steps, config.beta, config.final_beta)
        update = self.groups.updated(projections, beta=beta, seed=self.job.seed_for("groups", step))
        predictions = predictions.unflatten(0, (-1, len(batch.ids)))  # [1 + local crops, B, d]
        loss = group_contrast(predictions, update.features, labels, temperature=config.temperature)
        self.groups.keep(update)  # before the backward pass, which needs the updated ones alone
        if self.cache is not None:
            self.cache.put(projections)
        return loss, use_of_classes(labels, config.groups, "group") | {"likeness": likeness(projections)}

    def after_step(self, step: int) -> None:
        """f-hat follows (3.2); every so often groups and f-hat are set anew ("Avoiding Collapse", 3.2 and 3.4)."""
        config, done = self.config, step + 1
        ema.follow(self.follower, self.online, config.encoder_momentum)
        # The groups begin with k-means (3.4) as soon as there is a feature for each: in the first step, or here.
        first = math.ceil(config.groups / config.global_batch)
        if config.refit_every and (done % config.refit_every == 0 or (done == first and first > 1)):
            self._refit(self.cache.newest_first(), step)
        if config.reset_every and done % config.reset_every == 0:
            ema.begin(self.follower, self.online)

    def _refit(self, features: torch.Tensor, step: int) -> None:
        """k-means. It cannot be stopped inside a step, and is short: 300 x 4096 features and 3000 groups are 0.15 TFLOP
        on each of 64 GPUs."""
        # Features that are not finite leave the groups alone: the loss is not finite either, and ends the training.
        with contextlib.suppress(ValueError), torch.autocast(features.device.type, enabled=False):
            self.groups.refit(features, seed=self.job.seed_for("k-means", step))

    @torch.no_grad()
    def figures(self, step: int) -> dict[str, Any]:
        """How the training images fall to the groups, and what their labels say of that: "Grouping quality", 4.4."""
        job, config = self.job, self.config
        projections, ids = extract(job, job.dataset, self.online, stage="groups")
        falls_to = torch.cat([self.groups.assign(some.to(self.device)).cpu() for some in projections.split(8192)])
        sizes = cluster_sizes(falls_to, config.groups)
        scores = {"group_entropy": float(entropy(sizes / sizes.sum())), "empty": empty_share(sizes)}
        if job.dataset.labels is not None:
            labels = torch.from_numpy(job.dataset.labels[ids])
            inside = cluster_entropy(falls_to, labels, config.groups)
            quartiles = inside[sizes > 0].quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
            for name, value in zip(("label_entropy_q1", "label_entropy", "label_entropy_q3"), quartiles, strict=True):
                scores[name] = float(value)
            scores["nmi_labels"] = sharded_nmi(falls_to, labels)
        return {"clusters": {name: round(value, 4) for name, value in scores.items()}}
