"""Every backbone has its stages; their pooled outputs are what they should be."""

import pytest
import torch

from launcher.errors import InputError
from methods import backbones
from methods.backbones.spec import BACKBONES
from methods.evals.layers.stages import encoder, pooled

WIDTHS = {
    "resnet50": [256, 512, 1024, 2048],
    "small_resnet": [16, 32, 64, 128],
    "small_vgg": [16, 32, 64, 128, 256],
    "small_vit": [64] * 3,
    "vgg16_bn": [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6 + [4096],
    "alexnet_bn": [96, 256, 384, 384, 256, 4096],
    "resnet18": [64, 128, 256, 512],
    "vit_small_16": [384] * 12,
    "swin_tiny": [96, 192, 384, 768],
    "regnety_128gf": [528, 1056, 2904, 7392],
}


@pytest.mark.parametrize("name", WIDTHS)
def test_stages_are_as_wide_as_the_paper_s_layers(name):
    with torch.device("meta"):
        network = backbones.build(name).eval()
    size = 224 if name.startswith(("vit", "swin")) else max(32, BACKBONES[name].smallest)
    with encoder(name, network) as (encode, widths):
        made = encode(torch.empty(2, 3, size, size, dtype=torch.uint8, device="meta"))
    assert list(widths.values()) == WIDTHS[name]
    assert made.shape == (2, sum(WIDTHS[name]))


@pytest.mark.parametrize("name", ["small_resnet", "small_vgg"])
def test_the_last_stage_is_the_feature(name):
    torch.manual_seed(0)
    network = backbones.build(name).eval()
    images = torch.randint(0, 256, (3, 1, 16, 16), dtype=torch.uint8)
    with torch.no_grad(), encoder(name, network) as (encode, widths):
        stages, feature = encode(images), network(images)
        torch.testing.assert_close(stages[:, -list(widths.values())[-1] :], feature)
        again = stages.clone()
        encode(images.flip(0))
    assert torch.equal(stages, again)  # what was given out does not change behind one's back
    assert not any(module._forward_hooks for module in network.modules())  # and nothing of it stays


def test_a_map_is_averaged_whichever_way_it_lies():
    rows = torch.arange(24.0).view(1, 2, 3, 4)
    assert pooled(rows, (2, 3)).tolist() == [[5.5, 17.5]]
    assert pooled(rows, (1, 2)).tolist() == [[10.0, 11.0, 12.0, 13.0]]
    with pytest.raises(ValueError, match="neither"):
        pooled(torch.zeros(1, 1, 1, 1, 1), (2, 3))


def test_some_stages_score_as_they_do_among_all_and_one_that_is_not_there_is_refused(evaluated):
    usual = evaluated.scores("protocol=layers", "layers.probe=knn", "layers.neighbours=3")["layers"]
    *_, before, last = usual
    chosen = f"layers.stages=[{last},{before}]"
    found = evaluated.scores("protocol=layers", "layers.probe=knn", "layers.neighbours=3", chosen)["layers"]
    assert found == {stage: usual[stage] for stage in (before, last)} and [*found] == [before, last]
    with pytest.raises(
        InputError, match=f"^layers.stages=top: the backbone has no such stage; use .*{before}, {last}$"
    ):
        evaluated.scores("protocol=layers", "layers.stages=[top]")
