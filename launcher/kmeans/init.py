"""Where k-means starts."""

import numpy as np
import torch

from launcher.kmeans.shards import Ranks, Shards


def initial_centroids(
    features: torch.Tensor, k: int, init: str | torch.Tensor, seed: int, ranks: Ranks, shards: Shards
) -> torch.Tensor:
    """float32 [k, d] on the device of the features, the same on all ranks.

    init: "random", k distinct features drawn by `seed` from the whole data set, hence the same ones however it is
    sharded; or a tensor [k, d], of which rank 0's copy counts. Raises ValueError for any other.
    """
    centroids = torch.zeros(k, features.shape[1], device=features.device)
    # Every rank writes the rows it owns into zeros, so that the sum over ranks is the whole, exactly.
    if isinstance(init, torch.Tensor):
        check_given(init, centroids)
        if ranks.rank == 0:
            centroids.copy_(init)
    elif init == "random":
        chosen = np.random.default_rng([seed, 0]).choice(shards.total, size=k, replace=False)
        local = torch.from_numpy(chosen - shards.offset).to(features.device)
        here = (local >= 0) & (local < len(features))
        centroids[here] = features[local[here]].float()
    else:
        raise ValueError(f'init={init!r}: no such start; give "random" or a tensor of centroids [k, d]')
    return ranks.sum(centroids)


def check_given(init: torch.Tensor, centroids: torch.Tensor) -> None:
    """Raise ValueError unless the given centroids are finite and have the shape of the wanted ones."""
    if init.shape != centroids.shape:
        raise ValueError(
            f"init: centroids of shape {tuple(init.shape)} do not fit k and the features' d; "
            f"give shape {tuple(centroids.shape)}"
        )
    if not init.isfinite().all():
        raise ValueError("init: a centroid is NaN or infinite; give finite centroids")
