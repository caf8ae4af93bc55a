"""What a run was computed with: versions, device, threads. A resume on something else says so; exactness ends there."""

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

PACKAGES = (
    "sslrun",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "faiss-gpu",
    "faiss-cpu",
    "safetensors",
    "pillow",
    "scikit-image",
    "scikit-learn",
)


def describe() -> dict[str, Any]:
    """Versions, device, threads of this process."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    cuda = torch.cuda.is_available()
    return {
        "versions": versions,
        "python": platform.python_version(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "world_size": int(os.environ.get("WORLD_SIZE", 1)),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "driver": _driver() if cuda else None,
        "cuda": torch.version.cuda if cuda else None,
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two descriptions, as `field: before -> now`."""
    before, now = ({**described.get("versions", {}), **described} for described in (before, now))
    keys = ("python", "cpu", "threads", "world_size", "gpu", "driver", "cuda", *PACKAGES)
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in keys if before.get(key) != now.get(key)]


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _driver() -> str:
    try:
        with open("/proc/driver/nvidia/version") as file:
            return file.readline().split("Kernel Module")[-1].split()[0]
    except (OSError, IndexError):
        return "unknown"
