"""What a plan knows of the backbones without torch, against the modules themselves, on the meta device, and papers."""

from functools import cache

import pytest
import torch
import torch.nn.functional
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_weights

from methods import backbones
from methods.backbones.recompute import recompute_blocks
from methods.backbones.small_vit import network as small_vit
from methods.backbones.spec import BACKBONES

# Million parameters, without classifier or projection head.
PAPERS = {
    "resnet50": 23,  # thesis, Tables 5.1 and 5.2, which cut the rest off
    "resnet50_w2": 93,
    "resnet50_w4": 375,
    "resnet50_w5": 586,
    "vit_tiny_16": 5,  # Touvron et al. 2020, Table 1
    "vit_small_16": 21,
    "vit_small_8": 21,
    "vit_base_16": 85,
    "vit_base_8": 85,
}
OF_ANOTHER_SIZE = ("resnet50_w4", "resnet50_w5", "regnety_256gf", "vit_base_8")  # of the same code: seconds to run
OF_BOTTLENECKS = ("resnet50", "resnext101_32x8d", "regnety_128gf")


@cache
def trunk(name):
    with torch.device("meta"):
        return backbones.build(name).trunk


def images(name, size):
    return torch.empty(1, 3 if BACKBONES[name].colour else 2, size, size, device="meta")


def cost(name, size):
    """(multiply-adds, fp32 scalars that autograd keeps, each storage once, weights left out) of an image."""
    return cost_of(trunk(name), images(name, size))


def cost_of(network, images):
    network.train()
    own = {value.untyped_storage()._cdata for value in network.state_dict().values()}
    alive, sizes = [], {}

    def pack(value):
        alive.append(value)  # or another storage might get its address
        sizes[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        return value

    kept = torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value)
    with FlopCounterMode(display=False) as flops, kept:
        network(images)
    return flops.get_total_flops() / 2, sum(each for storage, each in sizes.items() if storage not in own) / 4


@pytest.fixture(autouse=True)
def fused_attention(monkeypatch):
    """As on a GPU. Left alone, the meta device keeps all N x N products."""

    def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False):
        fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return fused(q, k, v, dropout_p, is_causal, attn_mask=attn_mask)[0]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(small_vit, "scaled_dot_product_attention", attention)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_counts_are_those_of_the_module(name):
    size, network = BACKBONES[name], trunk(name)
    assert size.parameters == sum(p.numel() for p in network.parameters())
    assert size.batch_norm == any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in OF_ANOTHER_SIZE])
def test_the_cost_of_an_image_is_that_of_the_module(name):
    size = BACKBONES[name]
    macs, kept = cost(name, size.image_size)
    assert size.macs == pytest.approx(macs, rel=0.01) and size.activations == pytest.approx(kept, rel=0.01)
    assert size.macs_at(size.image_size) == size.macs and sum(size.kept_at(size.image_size)) == pytest.approx(
        size.activations
    )


@pytest.mark.parametrize(
    "name", ["small_resnet", "resnet18", *(pytest.param(name, marks=pytest.mark.slow) for name in OF_BOTTLENECKS)]
)
def test_blocks_that_are_computed_again_keep_what_the_plan_says(name):
    """What is kept outside of the blocks, with their inputs, and inside the largest one while it is computed again."""
    size, inputs = BACKBONES[name], []
    with torch.device("meta"):
        network = backbones.build(name).trunk
    blocks = [module for module in network.modules() if isinstance(module, backbones.network(name).BLOCK)]
    hooks = [block.register_forward_pre_hook(lambda block, given: inputs.append((block, given[0]))) for block in blocks]
    network(images(name, size.image_size))
    for hook in hooks:
        hook.remove()
    largest = max(cost_of(block, given.detach().clone().requires_grad_())[1] for block, given in inputs)
    recompute_blocks(name, network)
    outside = cost_of(network, images(name, size.image_size))[1]
    assert size.recomputed == pytest.approx(outside + largest, rel=0.01)


@pytest.mark.parametrize(
    "name", ["small_vgg", "small_resnet", "small_vit", "vit_small_16", pytest.param("resnet18", marks=pytest.mark.slow)]
)
def test_half_precision_halves_what_is_kept_but_for_the_share_that_is_said(name, monkeypatch):
    """As on a GPU: CPUs have another autocast. Of two images more than of one, so that copies of weights cancel."""
    whole, half = (
        kept_on_a_gpu(name, 2, half, monkeypatch) - kept_on_a_gpu(name, 1, half, monkeypatch) for half in (False, True)
    )
    assert BACKBONES[name].unhalved == pytest.approx(2 * half / whole - 1, abs=0.01)


def kept_on_a_gpu(name, count, half, monkeypatch):
    """Bytes that autograd keeps of `count` images on a GPU that is not there, under autocast to fp16 if `half`."""

    def attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False):
        if half:
            q, k, v = q.half(), k.half(), v.half()
        fused = torch.ops.aten._scaled_dot_product_efficient_attention
        return fused(q, k, v, attn_mask, True, dropout_p, is_causal)[0]

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", attention)
    monkeypatch.setattr(small_vit, "scaled_dot_product_attention", attention)
    with torch.device("meta"):
        network = backbones.build(name).trunk
    sizes, alive = {}, []

    def pack(value):
        alive.append(value)
        sizes[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        return value

    with FakeTensorMode():
        for module in network.modules():
            for key, value in {**module._parameters, **module._buffers}.items():
                if value is not None:
                    there = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
                    setattr(module, key, nn.Parameter(there) if key in module._parameters else there)
        own = {value.untyped_storage()._cdata for value in network.state_dict().values()}
        given = torch.empty(count, *images(name, BACKBONES[name].image_size).shape[1:], device="cuda")
        # torch.autocast turns itself off where there is no GPU.
        torch.set_autocast_enabled("cuda", half)
        torch.set_autocast_dtype("cuda", torch.float16)
        torch.autocast_increment_nesting()
        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
                network.train()(given)
        finally:
            torch.autocast_decrement_nesting()
            torch.set_autocast_enabled("cuda", False)
            torch.clear_autocast_cache()
    return sum(each for storage, each in sizes.items() if storage not in own)


@pytest.mark.parametrize(
    "name",
    ["small_vgg", "small_resnet", "resnet18", "resnet50", "small_vit", "vit_tiny_16", "vit_small_8", "swin_tiny"],
)
def test_cost_follows_the_size_of_the_image(name):
    size = BACKBONES[name]
    other = 48 if size.image_size == 32 else 96
    tolerance = 0.3 if name == "swin_tiny" else 0.1  # its windows are filled up
    macs, kept = cost(name, other)
    assert size.macs_at(other) == pytest.approx(macs, rel=tolerance)
    assert sum(size.kept_at(other)) == pytest.approx(kept, rel=tolerance)


@pytest.mark.parametrize("name", BACKBONES)
def test_the_smallest_image_goes_through(name):
    size = BACKBONES[name]
    features = trunk(name).eval()(images(name, size.smallest))
    assert features.shape == (1, size.feature_dim) == (1, trunk(name).feature_dim)


def test_parameters_are_those_of_the_papers():
    for name, millions in PAPERS.items():
        assert int(BACKBONES[name].parameters / 1e6) == millions, name
    assert round(BACKBONES["swin_tiny"].parameters / 1e6) == 28  # SMoG, Table 2
    assert round(BACKBONES["regnety_256gf"].parameters / 1e9, 1) == 1.3  # thesis, Table 4.7
    for name, millions in {"resnext101_32x8d": 91, "regnety_128gf": 693}.items():  # the same, with a projection head
        width = BACKBONES[name].feature_dim
        assert int((BACKBONES[name].parameters + width * width + width * 128) / 1e6) == millions, name


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnext101_32x8d"])
def test_counts_are_those_that_torchvision_publishes_with_the_classifier(name):
    published, size = get_model_weights(name).IMAGENET1K_V1.meta, BACKBONES[name]
    assert size.parameters + 1000 * (size.feature_dim + 1) == published["num_params"]
    assert size.macs / 1e9 == pytest.approx(published["_ops"], rel=2e-3)
