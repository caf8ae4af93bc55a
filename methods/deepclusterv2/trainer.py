"""DeepCluster-v2 (thesis 4.4), top to bottom: prototypes, labels. Its network is `ScoredByPrototypes`; its bank, and
the loss of all crops that predict the labels, are `engine.banked`."""

from functools import partial

import torch
from torch import nn

from launcher.kmeans import fit
from methods.engine.banked import Banked
from methods.engine.features import digest_of


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
