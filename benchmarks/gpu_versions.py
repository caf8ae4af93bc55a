"""python benchmarks/gpu_versions.py [FILE]      what benchmarks/gpu.sh measures with: the GPU, and versions; JSON."""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import torch

NAMES = "torch", "triton", "numpy", "faiss-gpu", "faiss-cpu", "lightly", "flash-kmeans", "hydra-core"


def version(name):
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def driver():
    with contextlib.suppress(OSError):
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.strip() or None
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path)
    options = parser.parse_args()
    there = torch.cuda.is_available()
    found = {
        "gpu": torch.cuda.get_device_name(0) if there else None,
        "gpu_gb": torch.cuda.get_device_properties(0).total_memory / 1e9 if there else None,
        "driver": driver(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        **{name: version(name) for name in NAMES},
    }
    print("\n".join(f"{name}: {value}" for name, value in found.items()))
    if options.file:
        options.file.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
