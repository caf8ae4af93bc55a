"""Weights from files as others publish them: what is taken, what is left, what is refused, and no code runs."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from launcher.errors import InputError
from methods import backbones
from methods.backbones.layouts import Source, of_file
from methods.weights.file import load
from methods.weights.spec import WeightsConfig


@pytest.fixture(scope="module")
def published():
    """{name: tensor} of a small_resnet, and the network."""
    torch.manual_seed(3)
    network = backbones.build("small_resnet")
    for value in network.state_dict().values():
        value.copy_(torch.randn(value.shape).abs() if value.is_floating_point() else value)
    return network.trunk.state_dict()


def loaded(path, key=None, backbone="small_resnet"):
    """(the trunk's state, what was thrown away)"""
    network = backbones.build(backbone)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = load(network, WeightsConfig(weights=str(path), backbone=backbone, content=digest, key=key))
    return network.trunk.state_dict(), found.thrown_away


def written(path, content):
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in content.items()}, path)
    else:
        torch.save(content, path)
    return path


def under(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


# What stands around the backbone, beside the layouts of publishers (test_what_others_publish.py).
HEAD = {"projection_head.0.weight": torch.zeros(2, 2), "prototypes.weight": torch.zeros(3, 2)}
CASES = {
    "plain.safetensors": (lambda state: state, None, []),
    "plain.pth": (lambda state: {**state, "fc.weight": torch.zeros(2, 128)}, None, ["fc"]),
    "ddp.pth": (lambda state: under("module.", {**state, **HEAD}), None, ["projection_head", "prototypes"]),
    "nested.pt": (lambda state: {"epoch": 3, "state_dict": under("module.backbone.", state)}, None, []),
    "compiled.torch": (lambda state: {"model": under("_orig_mod.module.", state)}, None, []),
    "one.pth": (lambda state: {"teacher": under("backbone.", state), "student": {}}, None, []),
    "student.pth": (lambda state: {"teacher": under("backbone.", state), "student": state}, "student", []),
    "two.ckpt": (lambda state: {"model": state, "ema": under("module.", state)}, "ema.module", []),
    "mine.pth": (lambda state: {"state_dict": under("my.", state)}, "state_dict.my", []),
}


@pytest.mark.parametrize("name", CASES)
def test_the_backbone_is_found_whatever_stands_around_it(published, tmp_path, name):
    wrapped, key, left = CASES[name]
    found, thrown_away = loaded(written(tmp_path / name, wrapped(published)), key)
    assert all(torch.equal(found[name], value) for name, value in published.items())
    assert thrown_away == left


def test_counters_that_old_files_lack_are_not_missed(published, tmp_path):
    old = {name: value for name, value in published.items() if not name.endswith("num_batches_tracked")}
    found, _ = loaded(written(tmp_path / "old.pth", old))
    assert all(torch.equal(found[name], value) for name, value in old.items())


def refused(path, *words, **options):
    with pytest.raises(InputError) as caught:
        loaded(path, **options)
    for word in ("weights=" if "key" not in options else "key=", *words):
        assert word in str(caught.value)


def test_what_is_not_the_backbone_is_refused_in_one_line(published, tmp_path):
    both = written(tmp_path / "both.pth", {"model": published, "ema": under("module.", published)})
    refused(both, "it holds the backbone 2 times, under ema, model; say which: key=ema")
    refused(both, "it has: model, ema", key="teacher")
    part = {name: value for name, value in published.items() if "blocks.3" not in name}
    refused(written(tmp_path / "part.pth", part), "15 of 60 missing (blocks.3.bn1.bias, blocks.3.bn1.running_mean, ")
    strange = under("my.", published)
    refused(written(tmp_path / "strange.pth", strange), "under my, as in no layout that is known; say key=my, if")
    wide = {**published, "conv1.weight": torch.zeros(16, 4, 3, 3)}
    refused(
        written(tmp_path / "wide.safetensors", wide),
        "another network than small_resnet: 1 of other shapes (conv1.weight [16, 4, 3, 3] for [16, 3, 3, 3])",
    )
    refused(
        written(tmp_path / "twice.pth", {**published, "module": published}),
        "conv1.weight is there twice, once more as module.conv1.weight",
    )
    refused(written(tmp_path / "none.pth", {"epoch": 3}), "no tensors")
    for name in ("torn.pth", "torn.safetensors"):
        (tmp_path / name).write_bytes(b"not weights")
        refused(tmp_path / name, "weights=")


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name_and_others_of_a_file_do_not_matter(
    published, tmp_path, number
):
    def spoilt(name):
        content = {**published, "fc.weight": torch.full((2, 128), number), "bn1.running_var": torch.ones(16)}
        content[name] = content[name].index_fill(0, torch.tensor([1]), number)
        return written(tmp_path / "diverged.pth", content)

    reason = "not finite, in 1 of 72 tensors (bn1.running_var); give weights of a training that did not diverge"
    refused(spoilt("bn1.running_var"), reason)
    with pytest.raises(InputError, match=r"^init_from=.*not finite.*\(bn1.running_var\)"):
        of_file("small_resnet", Source("init_from", tmp_path / "diverged.pth"))
    assert loaded(spoilt("fc.weight"))[1] == ["fc"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_in_another_precision_are_ours_in_fp32(published, tmp_path, dtype):
    theirs = {name: value.to(dtype) if value.is_floating_point() else value for name, value in published.items()}
    found, _ = loaded(written(tmp_path / "theirs.safetensors", theirs))
    assert {value.dtype for value in found.values()} == {torch.float32, torch.int64}
    assert all(torch.equal(found[name], value.to(found[name].dtype)) for name, value in theirs.items())


@pytest.mark.parametrize("name", ["page.pth", "page.pth.tar", "page.pt"])
def test_a_page_that_was_saved_instead_is_no_file_of_weights(tmp_path, name):
    (tmp_path / name).write_text("<!DOCTYPE html><html><title>Sign in</title></html>")
    refused(tmp_path / name, "it is no file of weights; look what it is")


def test_a_damaged_file_is_one_short_line_without_a_reader_s_advice(published, tmp_path):
    whole = written(tmp_path / "whole.pth", published).read_bytes()
    old = tmp_path / "old.pth"
    torch.save(published, old, _use_new_zipfile_serialization=False)
    generator = torch.Generator().manual_seed(0)
    for number, content in enumerate([whole, old.read_bytes()] * 15):
        # The names and shapes come first, in both kinds of file.
        damaged = bytearray(content)
        for place in torch.randint(2, 900, (3,), generator=generator).tolist():
            damaged[place] ^= 1 + int(torch.randint(255, (), generator=generator))
        path = tmp_path / f"damaged{number}.pth"
        path.write_bytes(bytes(damaged))
        try:
            loaded(path)
        except InputError as error:  # nothing else
            said = str(error).replace(str(path), "")
            assert "weights_only" not in said and len(said) < 600


def test_an_error_that_is_a_number_alone_is_called_by_its_kind(published, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise KeyError(143)

    path = written(tmp_path / "weights.pth", dict(published))
    monkeypatch.setattr(torch, "load", broken)
    refused(path, "cannot be read (KeyError)")


def test_a_file_that_changed_since_it_was_asked_for_is_refused(published, tmp_path):
    path = written(tmp_path / "weights.pth", dict(published))
    config = WeightsConfig(weights=str(path), backbone="small_resnet", content="0" * 64)
    with pytest.raises(InputError, match="changed"):
        load(backbones.build("small_resnet"), config)
