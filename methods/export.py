"""A run's backbone as one safetensors file, under torchvision's (or the demo network's) parameter names."""

import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from launcher import registry
from launcher.errors import InputError, RunFailed
from launcher.rundir import RunDir, read_json
from launcher.runtime.checkpoint import load_tensors, verify

TRUNK = "backbone.trunk."
INPUT = (
    "grey = mean over the colour channels of an image in 0..1, minus 0.449, divided by 0.226; channel 0 and 1 = its "
    "correlation with the Sobel kernels [[1,0,-1],[2,0,-2],[1,0,-1]] and their transpose, padding 1"
)


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
        "input": INPUT,
        **_EXPLAIN[spec.method.backbone],
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


_EXPLAIN = {
    "vgg16_bn": {
        "load": "torchvision.models.vgg16_bn()",
        "padding": "features.0.weight has a third input channel of zeros: feed (sobel x, sobel y, 0). classifier.6 is "
        "untrained and zero; classifier.3 gives the 4096 features before their ReLU",
    },
    "small_vgg": {"load": "methods.backbones.small.SmallVGG()", "padding": "none: feed (sobel x, sobel y)"},
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
    """The way back: exported weights as the state of a Backbone."""
    if backbone == "vgg16_bn":
        state = {k: v for k, v in state.items() if not k.startswith("classifier.6.")}
        state["features.0.weight"] = state["features.0.weight"][:, :2].contiguous()
    return {f"trunk.{key}": value for key, value in state.items()}
