"""A network that is in a file is ours wholly, or refused: nothing of it is dropped without a word."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from publishers import DeepClusters, lived_in, under
from timm.models.regnet import _filter_fn
from timm.models.swin_transformer import checkpoint_filter_fn
from torch import nn

from launcher.errors import InputError
from methods import backbones
from methods.backbones import layouts, network
from methods.backbones.layouts import Source, fitted

FILE = Path("weights.pth")
JUDGED = Source("weights", FILE, backbone="backbone", key=True)
STARTED = Source("init_from", FILE, backbone="method.backbone")


def shapes(make):
    """The state of a network, of which only names and shapes are there."""
    with torch.device("meta"):
        return make().state_dict()


def timms(name, **options):
    return shapes(lambda: timm.create_model(name, **options))


def refusal(state, backbone, source=JUDGED):
    with pytest.raises(InputError) as caught:
        fitted(state, backbone, source)
    return str(caught.value)


# What would be another network without a part of it, and the words that name the part. The first three once passed.
MORE = {
    "LayerScale": (
        lambda: timms("vit_small_patch16_224", init_values=1.0),
        "vit_small_16",
        "24 left over (blocks.0.ls1.gamma, ",
    ),
    "register tokens": (
        lambda: timms("vit_small_patch16_224", reg_tokens=4),
        "vit_small_16",
        "1 left over (reg_token)",
    ),
    "squeeze and excitation": (
        lambda: timms("seresnet50"),
        "resnet50",
        "64 left over (layer1.0.se.fc1.bias, layer1.0.se.fc1.weight, ",
    ),
    "more blocks in a stage": (lambda: timms("resnet101"), "resnet50", "306 left over (layer3.6.bn1.bias, "),
    "more blocks at the end": (
        lambda: timms("vit_tiny_patch16_224", depth=13),
        "vit_tiny_16",
        "12 left over (blocks.12.attn.proj.bias, ",
    ),
    "a norm after the mean": (
        lambda: timms("vit_tiny_patch16_224", global_pool="avg"),
        "vit_tiny_16",
        "2 of 150 missing (norm.bias, norm.weight), 2 left over (fc_norm.bias, fc_norm.weight)",
    ),
    "norms of queries and keys": (
        lambda: timms("vit_tiny_patch16_224", qk_norm=True),
        "vit_tiny_16",
        "48 left over (blocks.0.attn.k_norm.bias, ",
    ),
    "a norm before": (lambda: timms("vit_tiny_patch16_224", pre_norm=True), "vit_tiny_16", "norm_pre.bias, "),
    "a token of distillation": (
        lambda: timms("deit_tiny_distilled_patch16_224"),
        "vit_tiny_16",
        "3 left over (dist_token, head_dist.bias, head_dist.weight)",
    ),
    "a part beside the backbone": (
        lambda: under("backbone.", timms("resnet18")) | {"adapter.weight": torch.ones(2)},
        "resnet18",
        "1 left over (adapter.weight)",
    ),
}


@pytest.mark.parametrize("what", MORE)
def test_what_is_left_over_of_a_network_is_refused_by_name(what):
    make, backbone, named = MORE[what]
    state = make()
    for source in (JUDGED, STARTED):
        line = refusal(state, backbone, source)
        assert line.startswith(f"{source.field}=weights.pth: it holds another network than {backbone}: ")
        assert named in line and "; give another " in line and "\n" not in line


# (what was made, what was asked for, what it is)
TAKEN_FOR = {
    "deeper": (lambda: shapes(torchvision.models.resnet34), "resnet18", "resnet34"),
    "shallower": (lambda: shapes(torchvision.models.resnet18), "resnet34", "resnet18"),
    "another kind": (lambda: shapes(torchvision.models.resnet18), "resnet50", "resnet18"),
    "wider": (lambda: shapes(lambda: backbones.build("resnet50_w2").trunk), "resnet50", "resnet50_w2"),
    "grouped": (lambda: shapes(torchvision.models.resnext101_32x8d), "resnet50", "resnext101_32x8d"),
    "other patches": (lambda: timms("vit_small_patch8_224"), "vit_small_16", "vit_small_8"),
    "in a checkpoint": (
        lambda: {"model." + name: v for name, v in under("module.encoder.", timms("resnet18")).items()},
        "resnet50",
        "resnet18",
    ),
}


@pytest.mark.parametrize("how", TAKEN_FOR)
def test_weights_of_another_backbone_are_called_by_its_name(how):
    make, asked, held = TAKEN_FOR[how]
    state = make()
    assert refusal(state, asked).endswith(f"; these are the weights of {held}: say backbone={held}")
    assert refusal(state, asked, STARTED).endswith(f"; these are the weights of {held}: say method.backbone={held}")
    pinned = Source("method.teacher", FILE)
    assert refusal(state, asked, pinned).endswith(f"these are the weights of {held}: give those of {asked}")
    assert fitted(state, held, JUDGED).state


@pytest.mark.parametrize("name", ["wide_resnet50_2", "resnext50_32x4d", "resnet50d"])
def test_resnets_that_none_of_ours_is_are_refused_for_all(name):
    state = timms(name)
    for backbone in ("resnet50", "resnet50_w2", "resnet18"):
        assert "give another backbone=NAME or file" in refusal(state, backbone)


def test_the_transformer_of_moco_v3_has_the_names_of_ours_and_other_heads():
    state = {
        "state_dict." + name: v for name, v in under("module.base_encoder.", timms("vit_small_patch16_224")).items()
    }
    assert "12 heads of attention, ours 6" in refusal(state, "vit_small_16")
    base = {"state_dict." + name: v for name, v in under("module.base_encoder.", timms("vit_base_patch16_224")).items()}
    assert fitted(base, "vit_base_16", JUDGED).layout == "MoCo v3"  # of which the heads are the same


NEAREST = {
    "DINOv2": lambda: timms("vit_small_patch14_reg4_dinov2"),
    "MAE": lambda: (
        timms("vit_tiny_patch16_224", depth=13) | {"mask_token": torch.ones(1), "decoder_blocks.0.w": torch.ones(1)}
    ),
    "transformers": lambda: {
        "embeddings.cls_token": torch.ones(1),
        "encoder.layer.0.attention.attention.query.weight": torch.ones(1),
    },
    "plain names": lambda: {"stages.0.blocks.0.conv_dw.weight": torch.ones(1)},
}


@pytest.mark.parametrize("layout", NEAREST)
def test_a_refusal_says_which_known_layout_is_nearest(layout):
    assert f"; its layout is nearest to that of {layout}; " in refusal(NEAREST[layout](), "vit_tiny_16")


def test_one_that_is_not_known_is_wanted_by_its_key_where_a_key_may_be_said():
    state = under("my.net.", timms("resnet18"))
    assert "under my.net, as in no layout that is known; say key=my.net" in refusal(state, "resnet18")
    assert refusal(state, "resnet18", STARTED).endswith("save that part in a file of its own")
    assert fitted(state, "resnet18", JUDGED, key="my.net").state


def sobel_vgg(inputs=2, spoil=lambda filters: filters):
    """vgg16_bn as DeepCluster publishes it, but for `spoil(its Sobel filters)`."""
    state = {name: value for name, value in shapes(torchvision.models.vgg16_bn).items() if "classifier.6" not in name}
    state["features.0.weight"] = torch.ones(64, inputs, 3, 3)
    sobel = DeepClusters(nn.Identity()).sobel.state_dict()
    return state | under(
        "sobel.", {name: spoil(value) if name == "1.weight" else value for name, value in sobel.items()}
    )


@pytest.mark.parametrize("source", [JUDGED, STARTED], ids=lambda source: source.field)
def test_colour_weights_do_not_pass_for_sobel_ones(source):
    assert fitted(sobel_vgg(), "vgg16_bn", source).thrown_away == ["sobel"]
    line = refusal(
        shapes(torchvision.models.vgg16_bn) | {"features.0.weight": torch.ones(64, 3, 3, 3)}, "vgg16_bn", source
    )
    assert "its first convolution takes colours, ours what Sobel filters give" in line
    assert "Sobel filters are others than ours" in refusal(sobel_vgg(spoil=lambda f: f.flip(0)), "vgg16_bn", source)


def test_what_comes_of_a_file_does_not_move_torch_s_generator():
    """A run that starts from a file draws its heads as one does that starts from a run."""
    state = timms("resnet18")
    layouts._shapes.cache_clear()
    before = torch.get_rng_state()
    fitted(state, "resnet18", STARTED)
    refusal(state, "resnet50", STARTED)
    assert torch.get_rng_state().equal(before)


# -- what others call the same parameters ------------------------------------------------------------------------------


def test_names_of_regnets_are_those_that_timm_understands_as_vissls_and_torchvisions():
    with torch.device("meta"):
        ours = backbones.build("regnety_256gf").trunk.state_dict()
    torchvisions, vissls = network("regnety_256gf").NAMES
    trunk = under("_feature_blocks.", {vissls(name): value for name, value in ours.items()})
    checkpoint = {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": {}}}}}
    for theirs in (_filter_fn(checkpoint), _filter_fn({torchvisions(name): v for name, v in ours.items()})):
        assert list(theirs) == list(ours)
    found = fitted(under("classy_state_dict.base_model.model.trunk.", trunk), "regnety_256gf", JUDGED)
    assert (found.layout, found.thrown_away) == ("VISSL", [])


def test_a_regnet_of_torchvision_gives_the_same_features():
    torch.manual_seed(0)
    theirs, ours = lived_in(torchvision.models.regnet_y_400mf()), timm.create_model("regnety_004", num_classes=0).eval()
    theirs.fc = nn.Identity()
    torchvisions, _ = network("regnety_128gf").NAMES
    state = theirs.state_dict()
    ours.load_state_dict({name: state[torchvisions(name)] for name in ours.state_dict()}, strict=True)
    same_features(ours, theirs, 64)


def test_a_swin_of_torchvision_and_of_its_authors_gives_the_same_features():
    torch.manual_seed(0)
    theirs = lived_in(torchvision.models.swin_t())
    state = theirs.state_dict()
    theirs.head = nn.Identity()
    ours = backbones.build("swin_tiny").eval()
    found = fitted(state, "swin_tiny", JUDGED)
    assert found.thrown_away == ["head", "relative_position_index"]  # the latter follows from the sizes
    ours.load_state_dict(found.state, strict=True)
    # Up to the second stage, which the layer between two is before: all others are called alike, and take long.
    trunk = ours.trunk
    same_features(nn.Sequential(trunk.patch_embed, *trunk.layers[:2]), theirs.features[:4], 112)
    trunk.float()
    # Its authors' names, of which timm knows what to make.
    released, _ = network("swin_tiny").NAMES
    named = {released(name): value for name, value in ours.trunk.state_dict().items()}
    buffers = {
        "layers.0.blocks.1.attn_mask": torch.ones(2),
        "layers.0.blocks.0.attn.relative_position_index": torch.ones(2),
    }
    filtered = checkpoint_filter_fn(named | buffers, ours.trunk)
    assert all(value.equal(ours.trunk.state_dict()[name]) for name, value in filtered.items())
    again = fitted({"model." + name: value for name, value in (named | buffers).items()}, "swin_tiny", JUDGED)
    assert all(value.equal(found.state[name]) for name, value in again.state.items())


def same_features(ours, theirs, size):
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.double()(images), theirs.double()(images), rtol=1e-9, atol=1e-9)
