"""Batch statistics over 16 of 32 images are the same on one rank in two passes, on two with a pass each, and on four of
which two share them: in float64, steps agree."""

import in_float64
import pytest

from launcher.compose.training import resolve

WORDS = ("method=rotnet", "recipe=tiny", "method.epochs=1", "data.images=96", "method.log_every=1")
GROUPS = ("method.batch_norm_group=16", "method.dropout=0.3", "method.checkpoint_every=1000")


def trained(world, spec, folder):
    return in_float64.train(world, spec, f"{folder}/{world.size}").losses


@pytest.mark.slow
def test_the_steps_are_the_same_on_one_two_and_four_ranks(ranks, tmp_path):
    spec, _ = resolve([*WORDS, *GROUPS])
    found = ranks((1, 2, 4), trained, spec.to_json(), str(tmp_path))
    (one, *_), (two, *_), (four, *_) = (found[size] for size in (1, 2, 4))
    assert len(one) == 3
    for others in (two, four):
        assert others == pytest.approx(one, rel=1e-9)
