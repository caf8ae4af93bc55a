"""DeeperCluster (thesis 3.3.1), top to bottom: networks, clustering between epochs, sampling per group, loss.

The 4m super-classes are clusters x rotations: super-class s = 4 c + r holds the images of super-cluster c, turned by r
quarter turns. A group of ranks serves each; it owns the sub-classifier W_s and sees only that group's images.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from launcher.kmeans import nmi
from launcher.run.files import replacing
from launcher.runtime.stateful import ValueState
from methods.data.loader import Batch, Request
from methods.data.sampler import Permutation
from methods.deepercluster.spec import ROTATIONS
from methods.deepercluster.subclassifiers import GroupState, SubClassifiers
from methods.deepercluster.targets import Targets, hosted_groups, ranks_of_group
from methods.engine.job import Job
from methods.engine.pseudo_labels import PseudoLabels, cluster_labels, labels_within
from methods.engine.trainer import Loss, Trainer
from methods.evals.montage import montage
from methods.parts import optim
from methods.parts.heads import Headed


class Network(Headed):
    """uint8 [B, C, H, W] -> (features after their ReLU [B, d], scores V f(x) of the super-classes [B, 4m])."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = torch.relu(self.backbone(images))
        return features, self.super_classifier(features)


class DeeperCluster(Trainer):
    """Alternates between hierarchical k-means of the features and predicting clusters and rotations."""

    network_type = Network

    def __init__(self, job: Job):
        super().__init__(job)
        config, world, groups = self.config, self.world, self.config.groups
        self.hosted = hosted_groups(world.rank, world.size, groups)
        blocks = [ranks_of_group(s, world.size, groups) for s in range(groups)] if world.size > groups else []
        # theta and V are shared by all ranks, W_s by the ranks of group s (3.3.1, "Distributed training").
        self.sub = SubClassifiers(len(self.hosted), config.clusters, self.backbone.feature_dim)
        self.shared_sub = job.distribute(self.sub, world.group_of(blocks), ranks=job.layout.group_size)
        self.networks.append(self.shared_sub)
        self._scale_sub_gradients()
        self.sub_optimizer = optim.make(config, self.sub.parameters())
        self.optimizers.append(self.sub_optimizer)

        self.targets = {c: Targets() for c in sorted({s // ROTATIONS for s in self.hosted})}
        self.assigned_epoch = -1  # in which the targets were made; -1: rotations only
        # c k + sub-cluster of each sample, -1 for none; kept by rank 0 alone.
        self.assignments = np.full(len(job.dataset) if world.is_main else 0, -1, np.int32)
        self.nmi_previous: float | None = None
        self._register()

    def _register(self) -> None:
        owners, world, groups = self.job.owners, self.world, self.config.groups
        owners.add("round", ValueState(self._round, self._set_round))
        if world.is_main:
            owners.add("assignments", ValueState(self._history, self._set_history), shard="assignments", writes=True)
        for slot, s in enumerate(self.hosted):
            first = world.rank == min(ranks_of_group(s, world.size, groups))
            state = GroupState(self.sub, self.sub_optimizer, slot)
            owners.add(f"sub_classifier_{s:03d}", state, shard=f"group_{s:03d}", writes=first)
        for c, targets in self.targets.items():
            owner = min(min(ranks_of_group(ROTATIONS * c + r, world.size, groups)) for r in range(ROTATIONS))
            owners.add(f"targets_{c:03d}", targets, shard=f"cluster_{c:03d}", writes=world.rank == owner)

    # -- between epochs ------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Every T epochs, once the rotation epochs are over: new targets, new heads."""
        since = epoch - self.config.rotation_epochs
        if since >= 0 and since % self.config.reassign_every == 0 and self.assigned_epoch != epoch:
            self._reassign(epoch)

    def _reassign(self, epoch: int) -> None:
        """Features -> whitened -> m clusters -> k inside each -> the targets of the groups that this rank hosts."""
        config = self.config
        how = {"pca_dim": config.pca_dim, "iterations": config.kmeans_iterations, "keep_work_s": config.keep_work_s}
        levels, step = (config.super_clusters, config.clusters), epoch * self.steps_per_epoch
        found = cluster_labels(self.job, self.backbone, epoch, step=step, clusters=levels, **how)
        # From here on nothing stops in between: targets, heads and history change together.
        self._take_over(found)
        self._remember(found)
        self._reset_heads(epoch)
        self.assigned_epoch = epoch

    def _take_over(self, found: PseudoLabels) -> None:
        """The one exchange: each rank learns (sample, sub-class) of the super-clusters whose groups it hosts."""
        world, groups = self.world, self.config.groups
        wanted = [{s // ROTATIONS for s in hosted_groups(r, world.size, groups)} for r in range(world.size)]
        mine = labels_within(world, found, wanted)
        rows = torch.stack([mine.ids, mine.labels], dim=1)
        for c, targets in self.targets.items():
            targets.set(rows[mine.super_labels == c])

    def _remember(self, found: PseudoLabels) -> None:
        """Rank 0 keeps all assignments: for the NMI between successive clusterings (3.2.2) and for the pictures."""
        flat = found.super_labels * self.config.clusters + found.labels
        rows = self.world.collect(torch.stack([found.ids, flat], dim=1))
        if rows is None:
            return
        previous, self.assignments = self.assignments, np.full_like(self.assignments, -1)
        self.assignments[rows[:, 0].numpy()] = rows[:, 1].numpy()
        both = (previous >= 0) & (self.assignments >= 0)
        self.nmi_previous = nmi(previous[both], self.assignments[both]) if both.any() else None

    def _reset_heads(self, epoch: int) -> None:
        """V and every W_s start anew; a head's draw depends on (seed, epoch, s) alone, not on who hosts it."""
        head, std = self.module.super_classifier, self.config.head_std
        generator = torch.Generator().manual_seed(self.job.seed_for("super-classifier", epoch))
        with torch.no_grad():
            head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * std)
            head.bias.zero_()
        for slot, s in enumerate(self.hosted):
            generator = torch.Generator().manual_seed(self.job.seed_for("sub-classifier", epoch, s))
            self.sub.reset(slot, generator, std)
        for parameter in head.parameters():
            self.optimizers[0].state.pop(parameter, None)
        self.sub_optimizer.state.clear()

    # -- steps ---------------------------------------------------------------------------------------------------

    def steps(self, epoch: int, first: int) -> Iterator[list[Batch]]:
        """A group's share of a step is global_batch / 4m images, split by its ranks, ordered by (seed, epoch, s)."""
        job, config = self.job, self.config
        share = config.global_batch // config.groups // job.layout.group_size  # a rank's part of a group's batch
        position = job.world.rank % job.layout.group_size
        orders = {s: self._order(epoch, s) for s in self.hosted}
        passes = job.layout.accumulation

        def requests() -> Iterator[Request]:
            for step in range(first, self.steps_per_epoch):
                begin = (step * job.layout.group_size + position) * share
                part = slice(begin, begin + share)
                ids, labels = (np.concatenate([orders[s][i][part] for s in self.hosted]) for i in (0, 1))
                slots = np.repeat(np.arange(len(self.hosted)), share)
                for part in np.split(np.arange(len(ids)), passes):
                    yield Request(ids[part], epoch, {"label": labels[part], "slot": slots[part]})

        stream = job.load(self.view(), requests())
        for _ in range(first, self.steps_per_epoch):
            yield [next(stream) for _ in range(passes)]

    def _order(self, epoch: int, s: int) -> tuple[np.ndarray, np.ndarray]:
        """(sample ids, labels) that group s sees in an epoch: N / 4m of them."""
        config = self.config
        count = self.steps_per_epoch * (config.global_batch // config.groups)
        if self.assigned_epoch < 0:  # rotations only: the images are dealt out to the groups, each once an epoch
            everything = Permutation(len(self.job.dataset), self.job.seed_for("deal", epoch))
            return everything(s + config.groups * np.arange(count)), np.zeros(count, np.int64)
        rng = np.random.default_rng(self.job.seed_for("order", epoch, s))
        return self.targets[s // ROTATIONS].draw(count, rng, uniform=config.sampling == "clusters")

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eq. 3.4: l(V f(x), y) + sum_s y_s l(W_s f(x), z^s), mean over the batch; y = 4 c + r, z^s: sub-cluster."""
        images, slots, labels = batch.images, batch.columns["slot"], batch.columns["label"]
        if batch.broken:  # a stand-in may come from another group; the groups lie side by side again
            order = torch.argsort(slots, stable=True)
            images, slots, labels = images[order], slots[order], labels[order]
        sizes = torch.bincount(slots, minlength=len(self.hosted)).tolist()
        features, super_scores = self.network(self._turned(images.to(self.device, non_blocking=True), sizes))
        super_class = torch.tensor(self.hosted)[slots]
        if self.assigned_epoch < 0:
            super_class = super_class % ROTATIONS
        super_class = super_class.to(self.device, non_blocking=True)
        super_loss = cross_entropy(super_scores.float(), super_class)
        hits = (super_scores.detach().argmax(1) == super_class).float().mean()
        scalars = {"super_loss": super_loss.detach(), "super_accuracy": hits}
        if self.assigned_epoch < 0:
            return super_loss, scalars
        sub_scores = self.shared_sub(features, sizes)
        sub_loss = cross_entropy(sub_scores.float(), labels.to(self.device, non_blocking=True))
        return super_loss + sub_loss, {**scalars, "sub_loss": sub_loss.detach()}

    def _turned(self, images: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        """Each group's images by its angle. images: [B, C, H, H], group after group, `sizes` of each hosted group."""
        parts = zip(images.split(sizes), self.hosted, strict=True)
        return torch.cat([torch.rot90(part, s % ROTATIONS, (2, 3)) for part, s in parts])

    def _scale_sub_gradients(self) -> None:
        """Eq. 3.4 averages over the global batch, of which a group is 1/4m; averaging over hosts or ranks of the group
        alone leaves W_s with the mean over the images that this rank or group saw."""
        config, hosted = self.config, len(self.hosted)
        scale = float(hosted) if config.sub_gradient == "group" else hosted / config.groups
        for parameter in self.sub.parameters():
            parameter.register_hook(lambda gradient: gradient * scale)

    # -- figures -------------------------------------------------------------------------------------------------

    def figures(self, step: int) -> dict[str, Any]:
        """NMI of the clusters with the labels and with the clustering before (3.2.2), and their picture; on rank 0."""
        if not self.world.is_main or self.assigned_epoch < 0:
            return {}
        dataset, known = self.job.dataset, self.assignments >= 0
        scores: dict[str, Any] = {"clusters": len(np.unique(self.assignments[known]))}
        if dataset.labels is not None:
            scores["nmi_labels"] = round(nmi(self.assignments[known], dataset.labels[known]), 4)
        if self.nmi_previous is not None:
            scores["nmi_previous"] = round(self.nmi_previous, 4)
        picture = montage(dataset, self.assignments, seed=self.job.spec.seed)
        path = self.job.run.path / "clusters.png"
        try:
            with replacing(path, durable=False) as file:
                picture.save(file, format="PNG")
        except OSError as error:  # a full disk: the next save says so
            print(f"picture: {error}", flush=True)
        self.job.reporter.image("clusters", np.asarray(picture), step)
        return {"clusters": scores}

    # -- state ---------------------------------------------------------------------------------------------------

    def _round(self) -> dict[str, Any]:
        return {"assigned_epoch": self.assigned_epoch}

    def _set_round(self, state: Mapping[str, Any]) -> None:
        self.assigned_epoch = state["assigned_epoch"]

    def _history(self) -> dict[str, Any]:
        return {"assignments": torch.from_numpy(self.assignments), "nmi_previous": self.nmi_previous}

    def _set_history(self, state: Mapping[str, Any]) -> None:
        self.assignments, self.nmi_previous = state["assignments"].numpy(), state["nmi_previous"]
