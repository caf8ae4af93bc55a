"""The blocks of images whose features the ranks make are the whole data set, in order, whatever the number of ranks."""

from types import SimpleNamespace

import pytest
import torch

from launcher.runtime.dist import World
from methods.engine.features import BATCH, _Block


def blocks(images, ranks):
    cpu = torch.device("cpu")
    jobs = [SimpleNamespace(world=World(rank, ranks, cpu)) for rank in range(ranks)]
    return [_Block(job, range(images), "features") for job in jobs]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("images", [1, 5, 64, 304, 1000, BATCH * 64 + 1])
def test_every_image_is_in_one_block_and_none_is_much_longer(images, ranks):
    made = blocks(images, ranks)
    assert [image for block in made for image in range(block.first, block.last)] == list(range(images))
    sizes = [block.last - block.first for block in made]
    assert max(sizes) - min(sizes) <= 1
    for block in made:
        assert block.batches == -(-max(sizes) // BATCH)  # all meet as often as the longest needs
        batches = block.missing()
        assert [image for batch in batches for image in range(*batch)] == list(range(block.first, block.last))
