"""Supervised training, top to bottom: network, labels, mixtures, loss, accuracy.

In comments: V crops of an image, B images of this rank, K classes.
"""

from collections.abc import Sequence
from typing import Any

import torch

from launcher.errors import InputError
from methods.data.loader import Batch, View
from methods.engine.collapse import Watched, entropy_of_use
from methods.engine.features import extract
from methods.engine.job import Job
from methods.engine.trainer import Loss, Trainer
from methods.parts import optim
from methods.parts.heads import Headed
from methods.parts.losses import entropy
from methods.supervised import mixing
from methods.supervised.loss import of_labels, of_mixtures
from methods.supervised.noise import noisy
from methods.supervised.views import DistortedView


class Network(Headed):
    """Crops of several resolutions, float [V_i B, C, S_i, S_i] each -> logits [sum V_i B, K], float32."""

    def forward(self, crops: Sequence[torch.Tensor]) -> torch.Tensor:
        features = self.features(crops)
        with torch.autocast(features.device.type, enabled=False):
            return self.classifier(features.float())


class Supervised(Trainer):
    """Each crop of an image is to tell its label."""

    network_type = Network

    def __init__(self, job: Job):
        labels, classes = job.dataset.labels, job.config.classes
        if labels is not None and (there := int(labels.max()) + 1) > classes:
            raise InputError.of("method.classes", classes, f"the data have {there}", f"give {there}")
        super().__init__(job)
        self.watched = Watched(classes, use="class_entropy", single="prediction_entropy")

    def optimizer(self, network: Network) -> torch.optim.Optimizer:
        """Biases and norms do not decay (Goyal et al. 2017, Section 5.1; DeiT's released code)."""
        return optim.make(self.config, optim.parameter_groups([network], weight_decay=self.config.weight_decay))

    def view(self) -> View:
        config, crops = self.config, super().view()
        if not (config.rand_augment or config.erasing):
            return crops
        return DistortedView(crops, config.rand_augment, config.erasing, config.normalise)

    def loss(self, batch: Batch, step: int) -> Loss:
        """The cross-entropy with the labels, or those of both images of a mixture, mean over V crops of B images."""
        config, images = self.config, len(batch.ids)
        labels, crops = self._on_device(self._labels(batch)), self.crops(batch)
        smoothing = {"smoothing": config.label_smoothing}
        if config.mixes:
            crops, own = self._mixed(crops, batch, step)
            logits = self.network(crops).unflatten(0, (-1, images))  # [V, B, K]
            losses = of_mixtures(logits, labels, mixing.partners(labels), own, **smoothing)
        else:
            logits = self.network(crops).unflatten(0, (-1, images))
            losses = of_labels(logits, labels, **smoothing)
        predicted = torch.softmax(logits.detach(), dim=-1)
        figures = {"class_entropy": entropy_of_use(predicted), "prediction_entropy": entropy(predicted).mean()}
        return losses.mean(), figures | {"accuracy": (predicted.argmax(-1) == labels).float().mean()}

    def _labels(self, batch: Batch) -> torch.Tensor:
        """Those that are trained on, int64 [B], in host memory: a share of all are wrong."""
        config, labels = self.config, batch.columns["label"]
        if not config.label_noise:
            return labels
        how = {"share": config.label_noise, "classes": config.classes, "seed": self.job.seed_for("label noise")}
        return torch.from_numpy(noisy(labels.numpy(), batch.ids.numpy(), **how))

    def _mixed(self, crops: list[torch.Tensor], batch: Batch, step: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        """(each crop mixed with that of its neighbour, the share that is its own [V, B])."""
        config, images = self.config, len(batch.ids)
        # A row that stands in for a broken image has the position of another, but one of the same pass.
        first = int(batch.columns["position"][0]) // images * images
        pairs, views = range(first // 2, (first + images) // 2), config.global_crops + config.local_crops
        how = {"mixup": config.mixup, "cutmix": config.cutmix, "cutmix_share": config.cutmix_share}
        drawn = mixing.draw(self.job.seed_for("mixing"), step, pairs, views, **how)
        made, own = [], []
        for each, part in zip(crops, drawn.parts([len(each) // images for each in crops]), strict=True):
            table, kept = mixing.shares(part, each.shape[-1])
            made.append(mixing.mixed(each, self._on_device(torch.from_numpy(table))))
            own.append(torch.from_numpy(kept).repeat_interleave(2, dim=1))
        return made, self._on_device(torch.cat(own).to(crops[0].dtype))

    def _on_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Without waiting for it."""
        pinned = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return pinned.to(self.device, non_blocking=True)

    def figures(self, step: int) -> dict[str, Any]:
        """The accuracy of the classifier itself, in percent of the test images, where they are of the same classes."""
        job = self.job
        if job.labelled is None or job.labelled[1].classes != job.dataset.classes:
            return {}
        test = job.labelled[1]
        guesses, ids = extract(job, test, self._guess, stage="classifying")
        hits = int((guesses[:, 0].numpy() == test.labels[ids]).sum())
        hits, images = (sum(each) for each in zip(*job.world.gather((hits, len(ids))), strict=True))
        return {"classifier": {"top1": 100 * hits / max(1, images)}}

    def _guess(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [B, C, H, W] -> the class of each, [B, 1], in float32, which holds any number of classes there are."""
        return self.network_type.forward(self.module, [images]).argmax(1, keepdim=True).float()
