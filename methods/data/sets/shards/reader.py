"""Images in tars."""

from methods.data.sets.shards.spec import ShardsData
from methods.data.shards import ImageShards


def read(config: ShardsData, split: str) -> ImageShards:
    how = {"labels": config.labels, "splits": config.splits, "max_pixels": config.max_pixels}
    return ImageShards(config.path, split, **how)
