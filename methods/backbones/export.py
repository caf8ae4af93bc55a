"""A run's backbone as one safetensors file, under the parameter names of torchvision or timm, or ours where the network
is our own."""

import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from launcher.errors import InputError, RunFailed
from launcher.run.files import read_json
from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import load_tensors, verify
from launcher.spec import registry
from methods.backbones.spec import BACKBONES, RGB_MEAN, RGB_STD

TRUNK = "backbone.trunk."
SOBEL = (
    "grey = mean over the colour channels of an image in 0..1, minus 0.449, divided by 0.226; channel 0 and 1 = its "
    "correlation with the Sobel kernels [[1,0,-1],[2,0,-2],[1,0,-1]] and their transpose, padding 1"
)
COLOUR = (
    f"red, green and blue of an image in 0..1, minus {list(RGB_MEAN)}, divided by {list(RGB_STD)}; a grey image stands "
    "for all three"
)
CLASSIFIERS = ("fc.", "head.")  # of published weights; no backbone of ours has one


def export(run: RunDir, target: Path) -> dict[str, str]:
    """Write the backbone of the newest checkpoint to `target` and return the file's metadata.

    The file loads with strict=True into what `metadata["load"]` names. Raises InputError where there is no checkpoint
    or `target` exists or cannot be written, RunFailed where the checkpoint is damaged.
    """
    saved = run.checkpoints()
    if registry.method(run.spec().method.name).job:
        raise InputError.of("RUN", run.id, "it trains nothing, and so has no weights", "give a run that trains")
    if not saved:
        raise InputError.of("RUN", run.id, "it has no checkpoint yet", f"`sslrun resume {run.id}`, or wait")
    if target.exists():
        raise InputError.of("--out", target, "it exists, and nothing is overwritten", "give another file")
    broken = verify(saved[-1])
    if broken:
        raise RunFailed(f"{saved[-1]}: {broken}; `sslrun resume {run.id}` falls back to an older checkpoint")
    spec, manifest = run.spec(), read_json(saved[-1] / "manifest.json")
    state = {k.removeprefix(TRUNK): v for k, v in load_tensors(saved[-1], "network").items() if k.startswith(TRUNK)}
    metadata = {
        "run": run.id,
        "method": spec.method.name,
        "backbone": spec.method.backbone,
        "step": str(manifest["step"]),
        "digest": manifest["digest"],
        "input": COLOUR if BACKBONES[spec.method.backbone].colour else SOBEL,
        **EXPLAIN[spec.method.backbone],
    }
    state = exported(state, spec.method.backbone)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        save_file(state, beside, metadata=metadata)
        beside.rename(target)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise InputError.of("--out", target, f"cannot be written ({error})", "give another file") from None
    return metadata


def _timm(call: str, features: str = "class token after the norm") -> dict[str, str]:
    return {"load": f"timm.{call}", "padding": f"none: the output is the features, {features}"}


def _ours(call: str, feeds: str) -> dict[str, str]:
    return {"load": f"methods.backbones.{call}", "padding": f"none: feed {feeds}"}


_MEAN = "averaged over the last map"
_VIT = "models.vision_transformer.VisionTransformer"
EXPLAIN = {
    "vgg16_bn": {
        "load": "torchvision.models.vgg16_bn()",
        "padding": "features.0.weight has a third input channel of zeros: feed (sobel x, sobel y, 0). classifier.6 is "
        "untrained and zero; classifier.3 gives the 4096 features before their ReLU",
    },
    "small_vgg": _ours("small.SmallVGG()", "(sobel x, sobel y)"),
    "alexnet_bn": _ours("alexnet.AlexNet()", "(sobel x, sobel y)"),
    "small_resnet": _ours("small_resnet.SmallResNet()", "three channels"),
    "small_vit": _timm(
        f"{_VIT}(img_size=32, patch_size=4, embed_dim=64, depth=3, num_heads=2, mlp_ratio=2, num_classes=0, "
        "dynamic_img_size=True)"
    ),
    # Under the names of torchvision.models.resnet50, too, which has a classifier `fc` beside.
    "resnet50": _timm("create_model('resnet50', num_classes=0)", _MEAN),
    **{f"resnet50_w{w}": _ours(f"resnet.ResNet50(width={w})", "three channels") for w in (2, 4, 5)},
    **{
        f"vit_{size}_{patch}": _timm(
            f"create_model('vit_{size}_patch{patch}_224', num_classes=0, dynamic_img_size=True)"
        )
        for size in ("small", "base")
        for patch in (16, 8)
    },
    "vit_small_5": _timm(
        f"{_VIT}(img_size=220, patch_size=5, embed_dim=384, depth=12, num_heads=6, num_classes=0, "
        "dynamic_img_size=True)"
    ),
    "swin_tiny": _timm("create_model('swin_tiny_patch4_window7_224', num_classes=0, strict_img_size=False)", _MEAN),
    "regnety_128gf": _timm("create_model('regnety_1280', num_classes=0)", _MEAN),
    "regnety_256gf": _timm("create_model('regnety_2560', num_classes=0)", _MEAN),
}


def exported(state: dict[str, torch.Tensor], backbone: str) -> dict[str, torch.Tensor]:
    """A trunk's state in the shape of the public class. VGG: input padded to 3 channels, last layer of zeros."""
    if backbone != "vgg16_bn":
        return state
    first = state["features.0.weight"]  # [64, 2, 3, 3]
    return {
        **state,
        "features.0.weight": torch.cat([first, torch.zeros_like(first[:, :1])], dim=1),
        "classifier.6.weight": torch.zeros(1000, 4096),
        "classifier.6.bias": torch.zeros(1000),
    }


def imported(state: dict[str, torch.Tensor], backbone: str) -> dict[str, torch.Tensor]:
    """The way back: exported weights, or those that torchvision and timm publish, as the state of a Backbone."""
    if backbone == "vgg16_bn":
        state = {k: v for k, v in state.items() if not k.startswith("classifier.6.")}
        state["features.0.weight"] = state["features.0.weight"][:, :2].contiguous()
    return {f"trunk.{key}": value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
