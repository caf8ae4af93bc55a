"""PCA and whitening of sharded features, which come before k-means (thesis 3.2.1 and 3.3.1, implementation details)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from launcher.kmeans.features import Features
from launcher.kmeans.resume import Pass, SafePoint, StateSlot, loaded
from launcher.kmeans.shards import Ranks, survey

CHUNK = 4096  # rows added to the Gram matrix at a time

# Below this share of the features' mean squared norm, the largest variance is what rounding left of constant features.
CONSTANT = 1e-12


@dataclass(frozen=True, eq=False)
class Whitening:
    """x -> (x - mean) projection. mean: float32 [d]; projection: float32 [d, dim]; the same on all ranks."""

    mean: torch.Tensor
    projection: torch.Tensor

    @torch.no_grad()
    def apply_(self, x: torch.Tensor, *, safe_point: SafePoint | None = None) -> torch.Tensor:
        """`apply` in the memory of x: overwrites its first `dim` columns and returns a view of them.

        safe_point: as for `fit_whitening`; with one this is collective, over all ranks.
        """
        d, dim = self.projection.shape
        most = max(rows for (rows,) in Ranks.of().table([len(x)])) if safe_point else len(x)
        for rows in Pass(len(x), most, CHUNK, 2.0 * d * dim, x.device, told(safe_point, "whitening", 1)):
            x[rows, :dim] = self.apply(x[rows])
        return x[:, :dim]

    @torch.no_grad()
    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Whitened and L2-normalised rows of x [n, d], float32 [n, dim]; a row that whitens to zero stays zero."""
        whitened = (x.float() - self.mean.to(x.device)) @ self.projection.to(x.device)
        return F.normalize(whitened, dim=1)


@torch.no_grad()
def fit_whitening(
    features: torch.Tensor | np.ndarray,
    dim: int,
    *,
    group: torch.distributed.ProcessGroup | None = None,
    floor: float = 1e-5,
    safe_point: SafePoint | None = None,
    resume: StateSlot | None = None,
) -> Whitening:
    """The first `dim` principal components of the features of all ranks, scaled to unit variance; collective.

    features: this rank's shard [n, d], floating point, a tensor or a (memory-mapped) array; n may be 0. Only the sum
    and the Gram matrix, float64, travel. floor: variances below floor * (the largest) are taken for that, so that the
    division does not blow up noise. The largest entry of each component is positive. Constant features whiten to zero.
    safe_point: called as safe_point("whitening", done, 2) about every second, equally often on all ranks; resume: where
    the answer is kept: one that lies there already is taken.

    Raises ValueError, the same on all ranks, if dim < 1 or dim > d, there are fewer than two features, a feature is
    NaN or infinite, or the ranks differ in d.
    """
    ranks, rows = Ranks.of(group), Features(features)
    shards, d = survey(rows, ranks), rows.d
    if not 1 <= dim <= d:
        raise ValueError(f"dim={dim}: features of dimension {d} have components 1 to {d}; set dim within these")
    if shards.total < 2:
        raise ValueError(f"features: {shards.total} on all ranks have no covariance; give two or more")

    found = loaded(resume, {"mean": (d,), "projection": (d, dim)}, lambda _: True, ranks, rows.device)
    if found:
        return Whitening(**found[0])
    over = Pass(rows.n, shards.longest, CHUNK, 2.0 * d * d, rows.device, told(safe_point, "whitening", 0))
    mean, covariance = moments(rows, ranks, shards.total, over)
    # Rank 0's answer for all: eigenvectors of close eigenvalues may come out differently on another kind of machine.
    projection = torch.zeros(d, dim, dtype=torch.float64, device=rows.device)
    if ranks.rank == 0:
        projection += components(mean, covariance, dim, floor)
    whitening = Whitening(mean.float(), ranks.sum(projection).float())
    if resume and ranks.rank == 0:
        resume.note(1, vars(whitening), {})
    return whitening


def told(safe_point: SafePoint | None, stage: str, done: int) -> Callable[[], None] | None:
    """The safe point between two chunks."""
    return safe_point and (lambda: safe_point(stage, done, 2))


def moments(features: Features, ranks: Ranks, total: int, over: Pass) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [d] and covariance [d, d] of the features of all ranks, float64; one all-reduce."""
    d = features.d
    packed = torch.zeros(d + 1, d, dtype=torch.float64, device=features.device)
    for rows in over:
        x = features[rows].double()
        packed[0] += x.sum(dim=0)
        packed[1:] += x.T @ x
    packed = ranks.sum(packed)
    mean, gram = packed[0] / total, packed[1:]
    return mean, (gram - total * torch.outer(mean, mean)) / (total - 1)


def components(mean: torch.Tensor, covariance: torch.Tensor, dim: int, floor: float) -> torch.Tensor:
    """The `dim` first eigenvectors of the covariance over the root of their eigenvalues, float64 [d, dim]."""
    variances, vectors = torch.linalg.eigh(covariance)  # ascending
    variances, vectors = variances.flip(0)[:dim], vectors.flip(1)[:, :dim]
    if variances[0] <= CONSTANT * (covariance.trace() + mean.square().sum()):
        return torch.zeros_like(vectors)
    largest = vectors.abs().argmax(dim=0, keepdim=True)
    signs = vectors.gather(0, largest).sign()
    return vectors * signs / variances.clamp(min=floor * variances[0]).sqrt()
