"""Features of a whole dataset, each rank its shard: sample i belongs to rank i mod world_size."""

import contextlib
from collections.abc import Callable

import numpy as np
import torch

from methods.data import ImageDataset
from methods.data.loader import Request
from methods.job import Job
from methods.views import CentreView

BATCH = 256  # images a forward pass without gradients
SAFE_POINT_EVERY = 8  # batches


@torch.no_grad()
def extract(
    job: Job, dataset: ImageDataset, encode: Callable[[torch.Tensor], torch.Tensor], *, stage: str
) -> tuple[torch.Tensor, np.ndarray]:
    """(features float32 [n, d] in host memory, sample ids int64 [n]) of this rank's shard, centre crops, broken images
    left out. `encode`: uint8 [B, C, H, W] on the device -> [B, d]. Collective: raises Stopped between batches.
    """
    world, size = job.world, len(dataset)
    mine = np.arange(world.rank, size, world.size)
    # Every rank makes as many batches, so that all meet at the same safe points; the last ones may be short.
    longest = -(-size // world.size)
    total = -(-longest // BATCH)
    requests = [Request(mine[i * BATCH : (i + 1) * BATCH], 0, {}) for i in range(total)]
    features, ids, count = None, [], 0
    stream = job.load(
        CentreView(job.config.image_size), (r for r in requests if len(r.ids)), dataset=dataset, drop=True
    )
    with contextlib.closing(stream), job.autocast():
        for number in range(total):
            if number % SAFE_POINT_EVERY == 0:
                job.safe_point(stage, number, total)
            batch = next(stream, None)
            if batch is not None and len(batch.ids):
                encoded = encode(batch.images.to(world.device, non_blocking=True))
                if features is None:  # the whole shard at once: a list to join would need the memory twice
                    features = torch.empty(len(mine), encoded.shape[1])
                features[count : count + len(encoded)] = encoded
                count += len(encoded)
                ids.append(batch.ids.numpy())
    job.safe_point(stage, total, total)
    if features is None:
        blank = torch.zeros(1, dataset.channels, job.config.image_size, job.config.image_size, dtype=torch.uint8)
        return encode(blank.to(world.device)).float().cpu()[:0], np.empty(0, np.int64)
    return features[:count], np.concatenate(ids)
