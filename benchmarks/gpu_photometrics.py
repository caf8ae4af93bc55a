"""python benchmarks/gpu_photometrics.py      seconds on one GPU; `--device cpu --small` to try it out

The photometric stage alone: images/s from uint8 crops and their draws, which lie in pinned memory, to what a network
sees, for the crops of the recipes of SwAV (2x224+6x96), DINO (2x224+10x96) and SimCLR (2x224), 64 images at a time.
With the copy to the device and without it. A step takes it once an image: `share` is how much of a step at the images/s
of benchmarks/gpu_steps.py that is, by the table (benchmarks/gpu_table.py).
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import numpy as np
import torch
from PIL import Image

from launcher.spec import registry
from methods.augment.stage import Photometrics
from methods.augment.views import MultiCropView
from methods.data.loader import Crops

RECIPES = {"swav": "paper", "dino": "paper", "simclr": "thesis"}
BATCH = 64
WARM_UP = 3


def batch(config, images):
    """Crops of pictures of noise, cut and drawn as for training."""
    view = MultiCropView.of(config, 0)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8))
    *pixels, rows = zip(*(view(picture, sample, 0) for sample in range(images)), strict=True)
    return Crops(tuple(torch.from_numpy(np.stack(each)) for each in pixels), torch.from_numpy(np.stack(rows)))


def seconds(call, times, cuda):
    """Of each of `times` calls, with everything done on the device."""
    taken = []
    for _ in range(times + WARM_UP):
        began = time.perf_counter()
        call()
        if cuda:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return taken[WARM_UP:]


def measure(method, options):
    device, images = torch.device(options.device), 4 if options.small else BATCH
    config = registry.method(method).recipe(RECIPES[method]).method
    stage, crops = Photometrics(config), batch(config, images)
    cuda = device.type == "cuda"
    if cuda:
        crops = crops.pin_memory()
    there = crops.to(device)
    sides = {
        "stage": lambda: stage(there),
        "copy and stage": lambda: stage(crops.to(device, non_blocking=True)),
    }
    found = {name: sorted(images / each for each in seconds(call, options.turns, cuda)) for name, call in sides.items()}
    return {
        "method": method,
        "images": images,
        "images_per_s": {
            name: {"low": rates[0], "median": statistics.median(rates), "high": rates[-1]}
            for name, rates in found.items()
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="few images: shows that it works, no more")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    rows = []
    for method in RECIPES:
        rows.append(measure(method, options))
        for name, rate in rows[-1]["images_per_s"].items():
            span = f"{rate['median']:.0f} images/s ({rate['low']:.0f} to {rate['high']:.0f})"
            print(f"{method}, {name}: {span}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"device": options.device, "rows": rows}))


if __name__ == "__main__":
    main()
