"""SwAV (thesis chapter 4), top to bottom: labels, loss, queue; its network is `ScoredByPrototypes`.

In comments: A global crops, which have labels, of V crops in all; B images of this rank, L in its queue; K prototypes.
"""

import torch

from methods.data.loader import Batch
from methods.engine.collapse import Watched, entropy_of_use, likeness
from methods.engine.job import Job
from methods.engine.trainer import Loss, Trainer
from methods.parts.heads import ScoredByPrototypes
from methods.parts.losses import entropy
from methods.parts.optim import drop_gradients
from methods.swav.loss import pseudo_labels, swapped_prediction
from methods.swav.queue import as_one_batch, make_queue


class SwAV(Trainer):
    """Online clustering: the views of an image are to fall into one cluster, and all clusters to be of one size."""

    network_type = ScoredByPrototypes

    def __init__(self, job: Job):
        super().__init__(job)
        config = self.config
        self.queue = None
        if config.queue:
            sizes = {"global_batch": config.global_batch, "views": config.global_crops, "features": config.embedding}
            queue = make_queue(config.queue, **sizes, world_size=self.world.size, device=self.device)
            self.queue = self.remember("queue", queue)
        entropies = {"use": "prototype_entropy", "single": "prediction_entropy"}
        self.watched = Watched(config.prototypes, **entropies, alike="likeness")

    def before_step(self, step: int) -> None:
        """Before every forward pass the prototypes get length 1 (released code)."""
        self.module.prototypes.normalise()

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eqs. 4.1 to 4.6: the global crops' labels, predicted from every other crop."""
        config, images = self.config, len(batch.ids)
        embeddings, scores = self.network(self.crops(batch))
        embeddings = embeddings.unflatten(0, (-1, images))
        scores = scores.unflatten(0, (-1, images))  # z: [V, B, K]
        labels = pseudo_labels(
            scores[: config.global_crops].detach(),
            self._queued(),
            epsilon=config.epsilon,
            iterations=config.sinkhorn_iterations,
            rounded=config.assignment == "rounded",
        )
        if self.queue is not None and step >= config.queue_epoch * self.steps_per_epoch:
            self.queue.put(embeddings[: config.global_crops].detach())
        loss = swapped_prediction(scores, labels, temperature=config.temperature)
        predicted = torch.softmax(scores.detach() / config.temperature, dim=-1)
        figures = {"prototype_entropy": entropy_of_use(predicted), "prediction_entropy": entropy(predicted).mean()}
        return loss, figures | {"likeness": likeness(embeddings[0])}

    @torch.no_grad()
    def _queued(self) -> torch.Tensor | None:
        """Scores of the queue with the prototypes of now, [A, L, K], once it is full (4.2.3)."""
        if self.queue is None or not self.queue.full:
            return None
        with torch.autocast(self.device.type, enabled=False):
            return self.module.prototypes(as_one_batch(self.queue.newest_first()))

    def after_backward(self, step: int) -> None:
        """For `freeze_epochs` the prototypes stay as they are: neither decay nor momentum moves them."""
        if step < self.config.freeze_epochs * self.steps_per_epoch:
            drop_gradients(self.module.prototypes.parameters())
