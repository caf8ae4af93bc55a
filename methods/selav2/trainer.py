"""SeLa-v2 (thesis 4.4), top to bottom: prototypes, labels. Its network is `ScoredByPrototypes`; its bank, and the loss
of all crops that predict the labels, are `engine.banked`."""

from collections.abc import Iterator
from functools import partial

import torch
from torch.nn.functional import normalize

from methods.engine.banked import Banked
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
