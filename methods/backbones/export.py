"""A run's backbone as one safetensors file, under the parameter names of torchvision or timm, or ours where the network
is our own."""

import uuid
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from launcher.errors import InputError, RunFailed
from launcher.run import manifest, waiting
from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import load_tensors, verify
from methods.backbones import network
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
    if not saved:
        raise InputError.of(
            "RUN", run.id, "it has no checkpoint yet", "wait" if run.held() else f"{run.first_fix()}, or wait"
        )
    if target.exists():
        raise InputError.of("--out", target, "it exists, and nothing is overwritten", "give another file")
    broken = verify(saved[-1])
    if broken:
        raise RunFailed(f"{saved[-1]}: {broken}; `sslrun resume {run.typed}` falls back to an older checkpoint")
    spec, newest = run.spec(), manifest.read(saved[-1])
    state = {k.removeprefix(TRUNK): v for k, v in load_tensors(saved[-1], "network").items() if k.startswith(TRUNK)}
    if not state:
        raise RunFailed(f"{saved[-1]}: it has no {TRUNK[:-1]} saved as network; mend `saved_as` of its trainer")
    metadata = {
        "run": run.id,
        "method": spec.method.name,
        "backbone": spec.method.backbone,
        "step": str(newest["step"]),
        "digest": newest["digest"],
        **explained(spec.method.backbone),
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


def is_export(path: Path) -> bool:
    """Whether `export` wrote the file of weights `path`, which can be read."""
    if path.suffix != ".safetensors":
        return False
    waiting.patiently(lambda: waiting.refuse_unanswered(path))
    with safe_open(path, "pt") as file:
        return {"run", "digest", "backbone"} <= {*(file.metadata() or ())}


def explained(name: str) -> dict[str, str]:
    """What to do with the weights of the backbone `name`: `load`, the call that makes the network which they fit;
    `padding`, how that one differs from ours, or what comes in and out of it; `input`, what it is fed with."""
    family, size = network(name), BACKBONES[name]
    call = getattr(family, "LOAD", f"{family.__name__}.{family.build.__name__}()")
    call = call if isinstance(call, str) else call[name]
    if call.startswith("timm."):
        features = "class token after the norm" if size.class_token else "averaged over the last map"
        same = f"none: the output is the features, {features}"
    else:
        same = f"none: feed {'three channels' if size.colour else '(sobel x, sobel y)'}"
    return {"input": COLOUR if size.colour else SOBEL, "load": call, "padding": getattr(family, "PADDING", same)}


def exported(state: dict[str, torch.Tensor], backbone: str) -> dict[str, torch.Tensor]:
    """A trunk's state in the shape of the public class."""
    change = getattr(network(backbone), "exported", None)
    return change(state) if change else state


def imported(state: dict[str, torch.Tensor], backbone: str) -> dict[str, torch.Tensor]:
    """The way back: exported weights, or those that torchvision and timm publish, as the state of a Backbone."""
    change = getattr(network(backbone), "imported", None)
    state = change(state) if change else state
    return {f"trunk.{key}": value for key, value in state.items() if not key.startswith(CLASSIFIERS)}
