"""What is dropped depends on the step and the place in the global batch, not on how that lies on ranks and passes."""

from types import SimpleNamespace

import pytest
import torch

from methods.backbones.dropout import Dropout, DropPath, begin_pass, begin_step
from methods.engine.loop import rows_of_pass

BATCH, TURNS = 12, 2


def job(rank, ranks, passes):
    return SimpleNamespace(
        world=SimpleNamespace(rank=rank),
        layout=SimpleNamespace(per_gpu_batch=BATCH // ranks // passes, accumulation=passes),
        config=SimpleNamespace(global_batch=BATCH),
    )


def dropped(kind, ranks=1, passes=1, step=0, calls=1):
    """The last of `calls` masks of a step over the whole global batch, turn by turn [TURNS, BATCH, 5]."""
    parts = []
    for rank in range(ranks):
        module, here = kind(0.5).train(), job(rank, ranks, passes)
        begin_step([module], lambda number: abs(hash((step, number))))
        for number in range(passes):
            begin_pass([module], rows_of_pass(here, number))
            ones = torch.ones(TURNS * here.layout.per_gpu_batch, 5)
            for _ in range(calls):
                found = module(ones)
            parts.append(found.view(TURNS, -1, 5))
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("kind", [Dropout, DropPath])
@pytest.mark.parametrize("ranks, passes", [(2, 1), (1, 3), (2, 3)])
def test_ranks_and_passes_share_the_draws_of_the_global_batch(kind, ranks, passes):
    assert torch.equal(dropped(kind, ranks, passes, calls=2), dropped(kind, calls=2))


@pytest.mark.parametrize("kind", [Dropout, DropPath])
def test_steps_calls_and_turns_draw_anew(kind):
    masks = [dropped(kind), dropped(kind, step=1), dropped(kind, calls=2)]
    assert not any(torch.equal(one, other) for i, one in enumerate(masks) for other in masks[:i])
    assert not torch.equal(*masks[0])
    assert torch.equal(masks[0], dropped(kind))


@pytest.mark.parametrize("seeded", [True, False])
def test_a_path_is_dropped_or_kept_by_the_row_and_keeps_its_mean(seeded):
    module = DropPath(0.25).train()
    if seeded:
        module.seed, module.rows = 1, (0, 4000, 4000)
    torch.manual_seed(0)
    kept = module(torch.ones(4000, 3, 2))
    torch.testing.assert_close(kept.unique(), torch.tensor([0.0, 4 / 3]))
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert kept.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("kind", [Dropout, DropPath])
def test_nothing_is_dropped_in_evaluation_or_at_probability_zero(kind):
    x = torch.randn(8, 3)
    assert torch.equal(kind(0.5).eval()(x), x) and torch.equal(kind(0.0).train()(x), x)


def test_rows_that_are_no_multiple_of_the_images_are_refused():
    module = Dropout(0.5).train()
    module.seed, module.rows = 1, (0, 4, 8)
    with pytest.raises(ValueError, match="dropout of 6 rows"):
        module(torch.ones(6, 3))
