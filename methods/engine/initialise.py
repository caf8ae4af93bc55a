"""Start a backbone from another run or from exported weights (`init_from`)."""

import hashlib
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from launcher.errors import InputError
from launcher.run.files import read_json
from launcher.runtime.checkpoint import SHARED, load_tensors
from methods.backbones.export import imported
from methods.engine.job import Job

PREFIX = "backbone."  # of every trainer's network


def load_backbone(backbone: nn.Module, job: Job) -> None:
    """Copy the pinned weights of `init_from` into `backbone`, strictly; nothing without `init_from`.

    Raises InputError when the source is gone, has changed since the run was submitted, or is another backbone.
    """
    source = job.spec.init_from
    if source is None or job.run.checkpoints():  # a run that has saved goes on from its own state
        return
    path = Path(source.path)
    try:
        if path.is_dir():
            if read_json(path / "manifest.json")["digest"] != source.digest:
                raise _changed(path)
            saved = load_tensors(path, "network", SHARED)
            state = {key.removeprefix(PREFIX): value for key, value in saved.items() if key.startswith(PREFIX)}
        else:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != source.digest:
                    raise _changed(path)
            state = imported(load_file(path), job.config.backbone)
        backbone.load_state_dict(state, strict=True)
    except (OSError, SafetensorError) as error:
        fix = "restore it, or start a new run"
        raise InputError.of("init_from", path, f"cannot be read ({error})", fix) from None
    except (RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError.of(
            "init_from", path, f"other weights than {job.config.backbone}'s ({reason})", "use its own"
        ) from None


def _changed(path: Path) -> InputError:
    return InputError.of("init_from", path, "it has changed since this run was submitted", "start a new run")
