"""Backbones beside the networks of torchvision and timm: the same weights load, the same images give the same."""

import pytest
import timm
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import methods
from methods import backbones
from methods.backbones import published
from methods.backbones.dropout import DropPath
from methods.backbones.export import explained, exported, imported
from methods.backbones.resnet.network import PUBLISHED, ResNet50
from methods.backbones.small_vit.network import SmallViT
from methods.backbones.spec import BACKBONES


def images(size, count=2):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def lived_in(module):
    """Every parameter and statistic somewhere else than at its initial value."""
    generator = torch.Generator().manual_seed(1)
    for value in module.state_dict().values():
        if value.is_floating_point():
            size = 0.1 * (value.abs().mean() + 0.1)
            value.add_(size * (torch.rand(value.shape, generator=generator) - 0.5))
    return module.eval()


def same(ours, theirs, size):
    with torch.no_grad():
        torch.testing.assert_close(ours(images(size)), theirs.eval()(images(size)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BACKBONES)
def test_what_is_exported_loads_into_the_class_that_its_metadata_names(name):
    with torch.device("meta"):
        backbone = backbones.build(name)
        theirs = eval(explained(name)["load"], {"timm": timm, "torchvision": torchvision, "methods": methods})
    state = exported(backbone.trunk.state_dict(), name)
    theirs.load_state_dict(state, strict=True, assign=True)
    back = imported(state, name)
    assert {key: value.shape for key, value in back.items()} == {
        key: value.shape for key, value in backbone.state_dict().items()
    }


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        pytest.param("resnet34", marks=pytest.mark.slow),
        pytest.param("resnext101_32x8d", marks=pytest.mark.slow),
    ],
)
def test_a_resnet_is_torchvisions_and_timms(name):
    ours = lived_in(backbones.build(name).trunk.double())
    with torch.device("meta"):
        theirs, timms = torchvision.models.get_model(name), timm.create_model(name, num_classes=0)
    missing = theirs.load_state_dict(ours.state_dict(), strict=False, assign=True)
    assert missing.missing_keys == ["fc.weight", "fc.bias"] and not missing.unexpected_keys
    theirs.fc = nn.Identity()
    timms.load_state_dict(ours.state_dict(), strict=True, assign=True)
    given = images(64).double()
    with torch.no_grad():
        for public in (theirs, timms):
            torch.testing.assert_close(public.eval()(given), ours(given), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_as_torchvision_publishes_them_come_in_without_their_classifier(name):
    with torch.device("meta"):
        state, ours = torchvision.models.get_model(name).state_dict(), backbones.build(name)
    ours.load_state_dict(imported(state, name), strict=True, assign=True)


def test_a_wide_resnet_widens_everything():
    with torch.device("meta"):
        narrow, wide = ResNet50().state_dict(), ResNet50(width=2).state_dict()
    for name, value in narrow.items():
        if value.dim() == 4:
            inputs = 3 if name == "conv1.weight" else 2 * value.shape[1]
            assert wide[name].shape == (2 * value.shape[0], inputs, *value.shape[2:])


@pytest.mark.parametrize("name, channels", [("resnet18", 256), ("resnet50", 1024)])
def test_residual_blocks_begin_as_the_identity_when_asked(name, channels):
    torch.manual_seed(0)
    block = backbones.build(name, zero_init_residual=True).trunk.layer3[1].eval()
    maps = torch.rand(1, channels, 4, 4)
    torch.testing.assert_close(block(maps), maps)
    assert not torch.equal(backbones.build(name).trunk.layer3[1].eval()(maps), maps)


@pytest.mark.parametrize("size", [16, 32, 48])
def test_the_small_transformer_is_timms_at_any_size(size):
    torch.manual_seed(0)
    ours = lived_in(SmallViT())
    theirs = VisionTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=64,
        depth=3,
        num_heads=2,
        mlp_ratio=2,
        num_classes=0,
        dynamic_img_size=True,
    )
    theirs.load_state_dict(ours.state_dict(), strict=True)
    same(ours, theirs, size)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.forward_features(images(size)), theirs.forward_features(images(size)), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize(
    "name, width, sizes", [("vit_small_16", 384, {224: 196, 96: 36}), ("vit_tiny_16", 192, {64: 16, 32: 4})]
)
def test_a_transformer_takes_global_and_local_crops_and_small_images_and_gives_its_tokens(name, width, sizes):
    torch.manual_seed(0)
    backbone = backbones.build(name).eval()
    with torch.no_grad():
        for size, patches in sizes.items():
            tokens = backbone.trunk.forward_features(backbone.input(images(size, 1)))
            assert tokens.shape == (1, 1 + patches, width)
            torch.testing.assert_close(tokens[:, 0], backbone(images(size, 1)))


def test_paths_are_dropped_by_our_own_draws_and_by_the_student_alone():
    with torch.device("meta"):
        for name, blocks in (("vit_small_16", 12), ("swin_tiny", 12)):
            student, teacher = backbones.build(name, drop_path=0.1), backbones.build(name)
            rates = [m.p for m in student.modules() if isinstance(m, DropPath)]
            assert len(rates) == 2 * (blocks - 1)  # the first keeps all
            assert max(rates) == pytest.approx(0.1) and rates == sorted(rates)
            assert not any(type(m).__name__ == "DropPath" for m in teacher.modules())
            assert student.state_dict().keys() == teacher.state_dict().keys()


def test_a_regnet_whose_normalisation_stands_alone_computes_the_same():
    torch.manual_seed(0)
    theirs = lived_in(timm.create_model("regnety_002", num_classes=0))
    ours = timm.create_model("regnety_002", num_classes=0)
    for layer in [m for m in ours.modules() if isinstance(m, timm.layers.ConvNormAct)]:
        published._split_normalisation(layer)
    normalisations = [m for m in ours.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert normalisations and {type(m) for m in normalisations} == {nn.BatchNorm2d}
    ours.load_state_dict(theirs.state_dict(), strict=True)
    same(ours.eval(), theirs, 64)


@pytest.mark.parametrize("name", [name for name in BACKBONES if BACKBONES[name].batch_norm])
def test_all_batch_normalisation_is_of_the_kind_that_ranks_can_share(name):
    with torch.device("meta"):
        modules = backbones.build(name).modules()
    kinds = {type(m) for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)}
    assert kinds <= {nn.BatchNorm1d, nn.BatchNorm2d}
