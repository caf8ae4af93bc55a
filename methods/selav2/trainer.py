"""SeLa-v2 (thesis 4.4), top to bottom: prototypes, labels, loss; its network is `ScoredByPrototypes`, its bank
`engine.banked`.

In comments: A global crops, whose embeddings are banked, of V crops in all; B images of this rank; H heads of K
prototypes each.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch.nn.functional import normalize

from methods.data.loader import Batch
from methods.engine.banked import Banked
from methods.engine.trainer import Loss
from methods.parts.losses import label_prediction
from methods.parts.sinkhorn import class_factors

ROWS = 8192  # of the bank, whose scores are in memory at a time


class SeLaV2(Banked):
    """Offline clustering: the crops of an image are to fall to the cluster that it had at the end of the epoch before,
    and all clusters are of one size."""

    def before_step(self, step: int) -> None:
        """Before every forward pass the prototypes get length 1, as SwAV's."""
        self.module.prototypes.normalise()

    @torch.no_grad()
    def make_labels(self, epoch: int, embeddings: torch.Tensor) -> torch.Tensor:
        """Eqs. 4.3 to 4.5 over the whole bank, rounded, for each head: y = argmax_k (Z / epsilon + log u)_k."""
        config = self.config
        prototypes = normalize(self.module.prototypes.weight.float()).chunk(config.heads)  # C of each head
        found = []
        for head, C in enumerate(prototypes):
            logits = partial(self._logits, self.of_head(embeddings, head), C)
            between = partial(self._safe_point, head)
            log_u = class_factors(logits, C[:, 0], iterations=config.sinkhorn_iterations, between=between)
            rounded = [(part + log_u).argmax(1) for part in logits()]
            found.append(torch.cat([log_u.new_empty(0, dtype=torch.int64), *rounded]))
        return torch.stack(found, dim=1)

    def _logits(self, rows: torch.Tensor, C: torch.Tensor) -> Iterator[torch.Tensor]:
        """Z / epsilon of these rows of the bank, some at a time."""
        return (part @ C.T / self.config.epsilon for part in rows.split(ROWS) if len(part))

    def _safe_point(self, head: int, done: int) -> None:
        each = 1 + self.config.sinkhorn_iterations
        self.job.safe_point("transport", head * each + done, self.config.heads * each)

    def loss(self, batch: Batch, step: int) -> Loss:
        """Eqs. 4.1 and 4.2 with the labels of the bank, that every crop of an image predicts."""
        config, images = self.config, len(batch.ids)
        embeddings, scores = self.network(self.crops(batch))
        scores = scores.unflatten(1, (config.heads, -1)).unflatten(0, (-1, images))  # z: [V, B, H, K]
        labels = self.labels.rows(batch.ids)  # y: [B, H]
        loss = label_prediction(scores, labels, temperature=config.temperature)
        self.put(self.bank, batch, embeddings)
        return loss, self.told(embeddings.unflatten(0, (-1, images)), scores)
