"""DeepCluster-v2 (thesis 4.4), top to bottom: prototypes, labels, loss; its network is `ScoredByPrototypes`, its bank
`engine.banked`.

In comments: A global crops, whose embeddings are banked, of V crops in all; B images of this rank; H heads of K
prototypes each.
"""

from functools import partial

import torch
from torch import nn

from launcher.kmeans import fit
from methods.data.loader import Batch
from methods.engine.banked import Banked
from methods.engine.features import digest_of
from methods.engine.trainer import Loss
from methods.parts.losses import label_prediction


class DeepClusterV2(Banked):
    """Offline clustering: the crops of an image are to fall to the cluster that it had at the end of the epoch
    before."""

    def build(self, backbone: nn.Module) -> nn.Module:
        """Prototypes are centroids: no gradient, and no decay, ever moves them."""
        network = super().build(backbone)
        network.prototypes.requires_grad_(False)
        return network

    def make_labels(self, epoch: int, embeddings: torch.Tensor) -> torch.Tensor:
        """Eq. 3.2 on the sphere, for each head: C_h and y = argmax_k <c_k, x>, spherical k-means of the bank. It begins
        with K rows of it; an empty cluster keeps its centroid (released code)."""
        config, job = self.config, self.job
        step, needed = epoch * self.steps_per_epoch, 4 * self.module.prototypes.weight.numel()
        weights = lambda: {"weights": digest_of(self.module.state_dict())}  # noqa: E731
        with job.keeping(step, weights, needed=needed, every_s=config.keep_work_s) as store:
            found = [
                fit(
                    self.of_head(embeddings, head),
                    config.prototypes,
                    metric="cosine",
                    init="random",
                    empty="keep",
                    iterations=config.kmeans_iterations,
                    seed=job.seed_for("k-means", epoch, head) % 2**32,
                    safe_point=partial(self._safe_point, head),
                    resume=store.slot(f"k-means-{head}"),
                )
                for head in range(config.heads)
            ]
        with torch.no_grad():
            self.module.prototypes.weight.copy_(torch.cat([clusters.centroids for clusters in found]))
        return torch.stack([clusters.assignments for clusters in found], dim=1)

    def _safe_point(self, head: int, stage: str, done: int, total: int) -> None:
        self.job.safe_point(f"{stage}-{head}", done, total)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eqs. 4.1 and 4.2 with the labels of the bank, that every crop of an image predicts."""
        config, images = self.config, len(batch.ids)
        embeddings, scores = self.network(self.crops(batch))
        scores = scores.unflatten(1, (config.heads, -1)).unflatten(0, (-1, images))  # z: [V, B, H, K]
        labels = self.labels.rows(batch.ids)  # y: [B, H]
        loss = label_prediction(scores, labels, temperature=config.temperature)
        self.put(self.bank, batch, embeddings)
        return loss, self.told(embeddings.unflatten(0, (-1, images)), scores)
