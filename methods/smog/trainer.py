"""SMoG (Pang et al., ECCV 2022), top to bottom: networks, views, groups, loss, what keeps groups from collapsing."""

import contextlib
import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from launcher.kmeans import cluster_entropy, cluster_sizes, sharded_nmi
from launcher.runtime.stateful import ModuleState, OptimizerState
from methods import backbones
from methods.augment.stage import Photometrics
from methods.augment.views import MultiCropView
from methods.data.loader import Batch
from methods.engine.collapse import Watched, empty_share, likeness
from methods.engine.initialise import load_backbone
from methods.engine.job import Job
from methods.evals.features import extract
from methods.parts import ema
from methods.parts.batchnorm import synchronise
from methods.parts.collectives import sum_over_ranks
from methods.parts.heads import perceptron
from methods.parts.layout import memory_parts
from methods.parts.losses import entropy
from methods.parts.memory import Memory
from methods.parts.optim import LARS, parameter_groups
from methods.parts.schedules import linear
from methods.smog.groups import Groups
from methods.smog.loss import group_contrast
from methods.smog.spec import SMoGConfig


class Network(nn.Module):
    """f_theta: a global crop of each image and local ones, view after view, float [V_i B, C, S_i, S_i] by resolution ->
    (projections of the global crop [B, d], predictions of all crops [V B, d])."""

    def __init__(self, backbone: nn.Module, config: SMoGConfig):
        super().__init__()
        widths = [config.hidden, config.embedding]
        self.backbone = backbone
        self.projection = perceptron(
            [backbone.feature_dim, *widths], activation=config.activation, last_batch_norm=True
        )
        self.predictor = perceptron([config.embedding, *widths], activation=config.activation)

    def forward(self, crops: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        # A pass a resolution, so that global crops share batch statistics with global crops alone, as f-hat's do.
        projections = [self.projection(self.backbone(images)) for images in crops]
        return projections[0], torch.cat([self.predictor(each) for each in projections])


class SMoG:
    """Groups of instances move with the instances, step by step; an image is to be near the group of its other view."""

    def __init__(self, job: Job):
        self.job, config, world = job, job.config, job.world
        torch.manual_seed(job.seed_for("network"))
        network = Network(backbones.build(config.backbone, dropout=config.dropout), config)
        load_backbone(network.backbone, job)
        # f-hat has no predictor: the text of 3.4 says the opposite, but in 3.2 f-hat's layers are some of f_theta's.
        follower = copy.deepcopy(nn.Sequential(network.backbone, network.projection))
        synchronise(nn.ModuleList([network, follower]), world, job.layout.batch_norm_ranks)
        self.backbone, self.followed = network.backbone, nn.Sequential(network.backbone, network.projection)
        self.follower = follower.to(world.device).requires_grad_(False)
        self.network = job.distribute(network)
        self.networks = [self.network, self.follower]
        self.watched = Watched(
            config.groups, use="group_entropy", alike="likeness", hit="groups_hit", images=config.global_batch
        )
        self.photometrics = Photometrics(config)
        self.optimizers = [_optimizer(network, config)]
        self.steps_per_epoch = len(job.dataset) // config.global_batch
        self.groups = Groups(
            config.groups,
            config.embedding,
            algorithm=config.algorithm,
            seed=job.seed_for("groups"),
            device=world.device,
        )
        self.cache = None
        if config.refit_every:
            batch = config.global_batch // world.size, config.embedding
            self.cache = Memory(config.cache, batch, device=world.device)
            for number, part in self.cache.parts(memory_parts(config.global_batch), world.rank, world.size).items():
                job.owners.add(f"cache_{number:03d}", part, shard=f"cache_{number:03d}", writes=True)
        job.owners.add("network", ModuleState(network))
        job.owners.add("follower", ModuleState(follower))
        job.owners.add("groups", self.groups)
        job.owners.add("optimizer", OptimizerState(self.optimizers[0], dict(network.named_parameters())))

    def begin_epoch(self, epoch: int) -> None:
        """All that changes does so in a step."""

    def steps(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        config, view = self.job.config, MultiCropView.of(self.job.config, self.job.spec.seed)
        if not config.asymmetric:
            large, *small = view.resolutions
            large = dataclasses.replace(large, recipes=large.recipes[:1] * config.global_crops)
            view = dataclasses.replace(view, resolutions=(large, *small))
        return self.job.batches_in_turn(view, epoch, first, self.steps_per_epoch)

    def before_step(self, step: int) -> None:
        """What depends on the step: beta, and which stream gets which augmentation (3.4)."""
        config = self.job.config
        self.step = step
        self.beta = linear(step, config.epochs * self.steps_per_epoch, config.beta, config.final_beta)

    def loss(self, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Eqs. 3 and 4: from one global crop and from the local ones, the group that the other global crop falls to."""
        config, device = self.job.config, self.job.world.device
        large, *small = self.photometrics(batch.images.to(device, non_blocking=True))
        both = large.chunk(2)  # the crops with the one augmentation, and those with the other
        a, b = both[self.step % 2], both[1 - self.step % 2]
        projections, predictions = self.network([a, *small])
        with torch.no_grad():
            others = self.follower(b)
        if self.step == 0 and config.global_batch >= config.groups:
            self._refit(others.unsqueeze(0))  # "initialized with the K-means algorithm" (3.4)
        labels = self.groups.assign(others)
        update = self.groups.updated(projections, beta=self.beta, seed=self.job.seed_for("groups", self.step))
        predictions = predictions.unflatten(0, (-1, len(batch.ids)))  # [1 + local crops, B, d]
        loss = group_contrast(predictions, update.features, labels, temperature=config.temperature)
        self.groups.keep(update)
        if self.cache is not None:
            self.cache.put(projections)
        return loss, self._figures(labels) | {"likeness": likeness(projections)}

    @torch.no_grad()
    def _figures(self, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of the groups that the images of this step fall to, on all ranks: in nats, at most ln of batch or groups."""
        # Not bincount, which makes the GPU wait for the size of its answer.
        members = torch.zeros(self.job.config.groups, device=labels.device)
        sum_over_ranks(members.index_add_(0, labels, torch.ones_like(labels, dtype=members.dtype)))
        return {"group_entropy": entropy(members / members.sum()), "groups_hit": (members > 0).float().mean()}

    def after_step(self, step: int) -> None:
        """f-hat follows (3.2); every so often groups and f-hat are set anew ("Avoiding Collapse", 3.2 and 3.4)."""
        config, done = self.job.config, step + 1
        ema.follow(self.follower, self.followed, config.encoder_momentum)
        # The groups begin with k-means (3.4) as soon as there is a feature for each: in the first step, or here.
        begin = math.ceil(config.groups / config.global_batch)
        if config.refit_every and (done % config.refit_every == 0 or done == begin > 1):
            self._refit(self.cache.newest_first())
        if config.reset_every and done % config.reset_every == 0:
            ema.begin(self.follower, self.followed)

    def _refit(self, features: torch.Tensor) -> None:
        """k-means without a safe point, of which there is none inside a step: 300 x 4096 features and 3000 groups are
        0.15 TFLOP on each of 64 GPUs."""
        # Features that are no numbers leave the groups alone: so is their loss, and the engine says which it was.
        with contextlib.suppress(ValueError), torch.autocast(features.device.type, enabled=False):
            self.groups.refit(features, seed=self.job.seed_for("k-means", self.step))

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, Any]:
        """How the training images fall to the groups, and what their labels say of that: "Grouping quality", 4.4."""
        job, config = self.job, self.job.config
        projections, ids = extract(job, job.dataset, self.followed, stage="groups")
        falls_to = torch.cat([self.groups.assign(some.to(job.world.device)).cpu() for some in projections.split(8192)])
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


def _optimizer(network: nn.Module, config: SMoGConfig) -> torch.optim.Optimizer:
    """LARS multiplies by the rate before the momentum, as its paper and SimCLR do, whose rate and decay SMoG has."""
    groups = parameter_groups([network], weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr)
    if config.optimizer == "lars":
        return LARS(groups, lr=config.lr, momentum=config.momentum, lr_in_momentum=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum)
