"""Supervised training, top to bottom: network, labels, mixtures, loss, accuracy.

In comments: V crops of an image, B images of this rank, K classes.
"""

from collections.abc import Sequence
from typing import Any

import torch

from methods.augment.mixing import Mixing, partners
from methods.data.loader import Batch, View
from methods.data.spec import too_few_classes
from methods.engine.collapse import Watched, entropy_of_use
from methods.engine.job import Job
from methods.engine.trainer import Loss, Trainer
from methods.parts import optim
from methods.parts.heads import Headed
from methods.parts.host import on_device
from methods.parts.losses import entropy
from methods.supervised.accuracy import top1
from methods.supervised.loss import of_labels
from methods.supervised.noise import noisy
from methods.supervised.views import distorted


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
            raise too_few_classes(classes, there)
        super().__init__(job)
        how = {name: getattr(job.config, name) for name in ("mixup", "cutmix", "cutmix_share")}
        self.mixing = Mixing(job.seed_for("mixing"), **how)
        self.watched = Watched(classes, use="class_entropy", single="prediction_entropy")

    def optimizer(self, network: Network) -> torch.optim.Optimizer:
        """Neither biases nor norms decay (norms: Goyal et al. 2017, Section 5.1; all, and UNDECAYED: DeiT's released
        code)."""
        groups = optim.parameter_groups([network], weight_decay=self.config.weight_decay, exempt=optim.UNDECAYED)
        return optim.make(self.config, groups)

    def view(self) -> View:
        return distorted(super().view(), self.config)

    def loss(self, batch: Batch, step: int) -> Loss:
        """The cross-entropy with the labels, or those of both images of a mixture, mean over V crops of B images."""
        config, images, crops = self.config, len(batch.ids), self.crops(batch)
        labels, smoothing = self._labels(batch), {"smoothing": config.label_smoothing}
        if config.mixes:
            # A row that stands in for a broken image has the position of another one, of the same pass.
            first = int(batch.columns["position"][0]) // images * images
            crops, kept = self.mixing(crops, step, range(first // 2, (first + images) // 2))  # lambda: [V, B]
        logits = self.network(crops).unflatten(0, (-1, images))  # [V, B, K]
        losses = of_labels(logits, labels, **smoothing)
        if config.mixes:
            losses = kept * losses + (1 - kept) * of_labels(logits, partners(labels), **smoothing)
        predicted = torch.softmax(logits.detach(), dim=-1)
        figures = {"class_entropy": entropy_of_use(predicted), "prediction_entropy": entropy(predicted).mean()}
        return losses.mean(), figures | {"accuracy": (predicted.argmax(-1) == labels).float().mean()}

    def _labels(self, batch: Batch) -> torch.Tensor:
        """y, int64 [B], on the device: a share of all are wrong."""
        config, labels = self.config, batch.columns["label"].numpy()
        if config.label_noise:
            how = {"share": config.label_noise, "classes": config.classes, "seed": self.job.seed_for("label noise")}
            labels = noisy(labels, batch.ids.numpy(), **how)
        return on_device(labels, self.device)

    def figures(self, step: int) -> dict[str, Any]:
        """The accuracy of the classifier itself."""
        return {"classifier": top1(self.job, lambda images: self.module([images]))}
