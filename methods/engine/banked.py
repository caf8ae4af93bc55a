"""Labels made between epochs of a bank of embeddings: DeepCluster-v2, SeLa-v2 (thesis 4.4). A method says how they
are made; the loss of all crops that predict them is here.

In comments: V crops of an image, of which the A global ones are banked; B images of this rank; H heads of K prototypes
each."""

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from launcher.errors import InputError
from launcher.kmeans import cluster_sizes, sharded_nmi
from launcher.runtime.preempt import Stopped
from launcher.runtime.stateful import ValueState
from methods.augment.views import MultiCropView
from methods.backbones import dropout
from methods.data.loader import Batch
from methods.engine.collapse import Watched, empty_share, entropy_of_use, likeness, use_of_classes
from methods.engine.job import Job
from methods.engine.running_statistics import RunningStatistics
from methods.engine.trainer import Loss, Trainer
from methods.parts.bank import SampleBank
from methods.parts.heads import ScoredByPrototypes
from methods.parts.layout import memory_parts
from methods.parts.losses import NO_LABEL, entropy, label_prediction

FILLING = 1 << 32  # the epoch of the pass that fills a bank: no training comes so far, however often it is continued


class Banked(Trainer):
    """A method writes `make_labels`, and what moves prototypes beside gradients; its config has `heads` (H, each with
    `prototypes`, K, of its own, one after the other in the network's), `embedding` (d) and `temperature` (tau), its
    outline a bank of the embeddings of the global crops and of the labels.

    The bank holds the embeddings of each image's global crops (A) as they were when they last went through the network,
    before the step: [A, d] a sample, in shares. An image that no step has met has no label until the next round.
    """

    network_type = ScoredByPrototypes

    def __init__(self, job: Job):
        super().__init__(job)
        config, samples = self.config, len(job.dataset)
        self._shape = {"parts": memory_parts(config.global_batch), "device": self.device}
        self.bank = self.remember("bank", self._empty_bank())
        labels = SampleBank(samples, (config.heads,), dtype=torch.int64, fill=NO_LABEL, **self._shape)
        self.labels = self.remember("labels", labels)
        self.filled, self.labelled_epoch = False, -1  # whether the bank is; the epoch that the labels are of
        job.owners.add("round", ValueState(self._round, self._set_round))
        told = {"use": "prototype_entropy", "single": "prediction_entropy", "alike": "likeness", "hit": "labels_hit"}
        self.watched = Watched(config.prototypes, **told, images=config.global_batch)

    # -- between epochs ------------------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        """Fill the bank, once, and make the labels of `epoch`. Each happens as a whole or not at all: a stop while
        labels are made keeps a bank that is full."""
        if not self.filled:
            self._fill()
        if self.labelled_epoch != epoch:
            ids, embeddings = self.bank.mine
            images = sum(self.job.world.gather(len(ids)))
            if images < self.config.prototypes:
                reason = f"only {images} images could be read for the bank"
                raise InputError.of(
                    "method.prototypes", self.config.prototypes, reason, "use fewer, or mend the images"
                )
            self.labels.put_mine(ids, self.make_labels(epoch, embeddings))
            self.labelled_epoch = epoch

    def make_labels(self, epoch: int, embeddings: torch.Tensor) -> torch.Tensor:
        """int64 [n, H], in 0..K-1, of `embeddings`, float32 [n, A, d], this rank's share of the bank, which may have no
        rows; and whatever changes with them. Collective; may raise Stopped before it changes anything."""
        raise NotImplementedError(f"{type(self).__name__}.make_labels")

    def of_head(self, embeddings: torch.Tensor, head: int) -> torch.Tensor:
        """[n, d]: what the labels of a head are made of, crop h mod A (released code)."""
        return embeddings[:, head % self.config.global_crops].contiguous()

    @torch.no_grad()
    def _fill(self) -> None:
        """A pass over the images in train mode (released code), in an order and with crops of its own. It moves running
        statistics, which a stop puts back: it begins anew."""
        job, steps = self.job, self.steps_per_epoch
        bank, buffers = self._empty_bank(), list(self.module.buffers())
        before = [buffer.clone() for buffer in buffers]
        view = MultiCropView.of(self.config, job.spec.seed)
        view = dataclasses.replace(view, resolutions=view.resolutions[:1])
        self.module.train()
        stream = job.batches_in_turn(view, FILLING, 0, steps)
        try:
            with contextlib.closing(stream):
                for number, (batch,) in enumerate(stream):
                    job.safe_point("bank", number, steps)
                    statistics = RunningStatistics(job, self.networks, 1)
                    self._seed_dropout(number)
                    with job.autocast():
                        embeddings, _ = self.module(self.crops(batch))
                    statistics.settle()
                    self.put(bank, batch, embeddings)
            job.safe_point("bank", steps, steps)
        except Stopped:
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
            raise
        self.bank.put_mine(*bank.mine)
        self.filled = True

    def _seed_dropout(self, number: int) -> None:
        job, images = self.job, self.job.layout.per_gpu_batch
        dropout.begin_step(self.networks, lambda layer: job.seed_for("dropout of the bank", number, layer))
        dropout.begin_pass(self.networks, (job.world.rank * images, images, self.config.global_batch))

    def _empty_bank(self) -> SampleBank:
        shape = self.config.global_crops, self.config.embedding
        return SampleBank(len(self.job.dataset), shape, **self._shape)

    # -- in a step -----------------------------------------------------------------------------------------------

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eqs. 4.1 and 4.2 with the labels of the bank, which every crop of an image predicts."""
        config, images = self.config, len(batch.ids)
        embeddings, scores = self.network(self.crops(batch))
        scores = scores.unflatten(1, (config.heads, -1)).unflatten(0, (-1, images))  # z: [V, B, H, K]
        labels = self.labels.rows(batch.ids)  # y: [B, H], the one-hot q_t of Eq. 4.2
        loss = label_prediction(scores, labels, temperature=config.temperature)  # H(q_t, p_s), p_s of Eq. 4.1
        self.put(self.bank, batch, embeddings)
        return loss, self.told(embeddings.unflatten(0, (-1, images)), scores, labels)

    def put(self, bank: SampleBank, batch: Batch, embeddings: torch.Tensor) -> None:
        """Keep the global crops' of `embeddings`, [V B, d] crop after crop. Collective."""
        each = embeddings.detach().unflatten(0, (-1, len(batch.ids)))[: self.config.global_crops]
        bank.put(batch.ids, each.transpose(0, 1))

    def told(self, embeddings: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """What tells of a collapse: of all predictions and labels of the first head, and of the first crops. Of the
        other heads nothing is told here, only of the embeddings that all heads share; `figures` are a mean over all of
        them. embeddings: [V, B, d], scores: [V, B, H, K], labels: [B, H]. Collective."""
        predicted = torch.softmax(scores[:, :, 0].detach() / self.config.temperature, dim=-1)
        figures = {"prototype_entropy": entropy_of_use(predicted), "prediction_entropy": entropy(predicted).mean()}
        figures |= use_of_classes(labels[:, 0], self.config.prototypes, "label")
        return figures | {"likeness": likeness(embeddings[0].detach())}

    # -- figures and state ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def figures(self, step: int) -> dict[str, Any]:
        """How the images fall to the prototypes of a head, mean over the heads, and what their labels say of that."""
        if self.labelled_epoch < 0:
            return {}
        ids, labels = (each.cpu() for each in self.labels.mine)
        scores: dict[str, list[float]] = {"entropy": [], "empty": []}
        for of_head in labels.unbind(1):
            sizes = cluster_sizes(of_head, self.config.prototypes)
            scores["entropy"].append(float(entropy(sizes / sizes.sum())))
            scores["empty"].append(empty_share(sizes))
            if self.job.dataset.labels is not None:
                classes = torch.from_numpy(self.job.dataset.labels)[ids]
                scores.setdefault("nmi_labels", []).append(sharded_nmi(of_head, classes))
        return {"clusters": {name: round(sum(each) / len(each), 4) for name, each in scores.items()}}

    def _round(self) -> dict[str, Any]:
        return {"filled": self.filled, "labelled_epoch": self.labelled_epoch}

    def _set_round(self, state: Mapping[str, Any]) -> None:
        self.filled, self.labelled_epoch = state["filled"], state["labelled_epoch"]
