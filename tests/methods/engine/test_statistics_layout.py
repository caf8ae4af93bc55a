"""The images that share batch statistics are the same on any world: so many a pass, passes a step, ranks together."""

import pytest

from launcher.errors import InputError
from launcher.spec.schema import TrainConfig
from methods.parts.layout import batch_norm_fits, batch_norm_layout

BATCH = 96
WORLDS = [n for n in range(1, BATCH + 1) if BATCH % n == 0]


@pytest.mark.parametrize("group", [0, 96, 24, 4])
def test_a_group_is_kept_on_every_world_that_it_fits(group):
    config = TrainConfig(global_batch=BATCH, batch_norm_group=group)
    fitting = [n for n in WORLDS if batch_norm_fits(config, BATCH // n, n)]
    assert fitting == [
        n for n in WORLDS if (BATCH // n) % (group or BATCH) == 0 or (group or BATCH) % (BATCH // n) == 0
    ]
    for world in fitting:
        images, passes, ranks, why = batch_norm_layout(config, BATCH // world, world)
        assert images * ranks == (group or BATCH)
        assert images * passes * world == BATCH
        assert passes == 1 or ranks == 1
        assert f"over {group or BATCH} images" in why


def test_one_pass_of_a_group_of_the_whole_batch_is_shared_by_all_ranks():
    config = TrainConfig(global_batch=BATCH)
    assert batch_norm_layout(config, 96, 1)[:3] == (96, 1, 1)
    assert batch_norm_layout(config, 24, 4)[:3] == (24, 1, 4)


@pytest.mark.parametrize("group, per_rank, world", [(36, 24, 4), (64, 96, 1), (48, 32, 3)])
def test_a_group_of_no_whole_passes_or_ranks_is_refused(group, per_rank, world):
    config = TrainConfig(global_batch=per_rank * world, batch_norm_group=group)
    with pytest.raises(InputError, match=f"^method.batch_norm_group={group}: {per_rank} images a rank"):
        batch_norm_layout(config, per_rank, world)
