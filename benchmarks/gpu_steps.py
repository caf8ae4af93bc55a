"""python benchmarks/gpu_steps.py [swav] [dino] [simclr]       a minute on one GPU; `--device cpu --small` to try it out

SwAV's ResNet-50 on 2x224+6x96 crops, DINO's ViT-S/16 on 2x224+10x96, SimCLR's ResNet-50 on 2x224, 64 images: images/s
and peak memory of a whole training step beside a plain loop and beside lightly's step of the same backbone
(benchmarks/gpu_sides.py), and the share of the step in which the GPU computes nothing. All sides train in one process,
in turns of some steps. Limit: 1.05 times the plain loop's time.

The engine's side: all of `engine.loop.train` between two steps, with uint8 crops and their draws in pinned memory,
which go to the device and through the photometric stage, neither of which the others have. Not counted: decoding and
cutting, which benchmarks/data.py measures. --precision fp16 | bf16; --compile: networks through torch.compile, here
and on the plain side, and no dropped paths. Peak memory stands beside the plan's for the same batch on one GPU. lightly
is measured where it can be imported.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import numpy as np
import torch
from gpu_sides import LIGHTLY, PLAIN
from jobs import created, started
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from launcher.compose.training import resolve
from launcher.plan import plan
from launcher.runtime.dist import World
from methods.augment.views import MultiCropView
from methods.data.loader import Batch, Crops
from methods.engine import loop

LIMIT = 1.05  # of the plain loop's time
WHOLE = {
    "swav": ["recipe=paper", "method.batch_norm_group=0", "method.freeze_epochs=0"],
    "dino": ["recipe=paper", "method.teacher_warmup_epochs=0", "method.freeze_epochs=0"],
    "simclr": ["recipe=thesis", "method.batch_norm_group=0"],
}
COMPILED = {"dino": ["method.drop_path=0"]}  # its seed is another in each step, for which torch would compile anew
ALL = ["data=photos", "data.colour=true", "method.global_batch=64", "method.warmup_epochs=0"]
SMALL = ["method.image_size=32", "method.global_batch=16", "method.hidden=64"]
SMALLER = {
    "swav": ["method.backbone=small_vgg", "method.local_size=16", "method.local_crops=2", "method.prototypes=50"],
    "dino": ["method.backbone=small_vit", "method.local_size=16", "method.local_crops=2", "method.outputs=256"],
    "simclr": ["method.backbone=small_vgg"],
}
WARM_UP = 1  # turns of each side that are not counted


class Enough(Exception):
    """All turns have been."""


class Turns:
    """The trainer's batches, and between two steps, every `length` of them, a turn of each other side."""

    def __init__(self, job, trainer, options):
        self._job, self._trainer, self._options = job, trainer, options
        self._cuda = job.world.device.type == "cuda"
        self._batches = itertools.cycle([_batch(job, number) for number in range(3)])
        self._others = {}
        self.seconds = {"engine": []}  # of a step, a turn each
        self.peaks = {}  # bytes
        self.idle = None
        trainer.steps = self.steps

    def steps(self, epoch, first):
        """The other sides begin to exist after the engine's first turn, whose peak is so the engine's alone."""
        length, name = self._options.length, self._job.config.name
        for turn in range(self._options.turns + WARM_UP):
            began = self._now()
            yield from ([next(self._batches)] for _ in range(length))
            self.seconds["engine"].append((self._now() - began) / length)
            if turn == 0:
                self.peaks["engine"] = self._peak()
                self._begin("plain", PLAIN[name])
                if importlib.util.find_spec("lightly") and not self._options.compile:
                    self._begin("lightly", LIGHTLY[name])
            for other, side in self._others.items():
                began = self._now()
                side.steps(length)
                self.seconds[other].append((self._now() - began) / length)
        if self._cuda:
            with profile(activities=[ProfilerActivity.CUDA]) as seen:
                began = self._now()
                yield from ([next(self._batches)] for _ in range(length))
                seconds = self._now() - began
            self.idle = 1 - _busy(seen) / seconds
        raise Enough

    def _begin(self, name, kind):
        """A side's first step, by itself: its peak is what it takes beside the others."""
        before = self._allocated()
        side = kind(self._job, self._trainer)
        if self._options.compile:
            side.network = torch.compile(side.network, dynamic=False)  # crops have two sizes
        side.steps(1)
        self.peaks[name] = self._peak() - before
        self._others[name], self.seconds[name] = side, []

    def _now(self):
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def _allocated(self):
        return torch.cuda.memory_allocated() if self._cuda else 0

    def _peak(self):
        if not self._cuda:
            return 0
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak


def _batch(job, number):
    """Crops of pictures of noise, cut and drawn as for training, in pinned memory."""
    view, size = MultiCropView.of(job.config, job.spec.seed), job.config.global_batch
    picture = Image.fromarray(np.random.default_rng(number).integers(0, 256, (375, 500, 3), np.uint8))
    *pixels, rows = zip(*(view(picture, sample, number) for sample in range(size)), strict=True)
    crops = Crops(tuple(torch.from_numpy(np.stack(each)) for each in pixels), torch.from_numpy(np.stack(rows)))
    if job.world.device.type == "cuda":
        crops = crops.pin_memory()
    return Batch(crops, torch.arange(size), {}, [])


def _busy(seen):
    """Seconds in which a kernel ran."""
    spans = sorted((e.time_range.start, e.time_range.end) for e in seen.events() if "CUDA" in str(e.device_type))
    busy, last = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
    return busy / 1e6


def words(method, options):
    given = [f"method={method}", *WHOLE[method], *ALL, f"method.precision={options.precision}"]
    given += COMPILED.get(method, []) if options.compile else []
    return [*given, *(SMALL + SMALLER[method] if options.small else [])]


def planned_gb(method, options):
    """What a plan says of the memory of one GPU that has the whole batch."""
    spec, recipe = resolve([*words(method, options), "cluster=generic", "nodes=1", "tasks_per_node=1"])
    return plan.make(spec, recipe).memory_gb


def measure(method, options):
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        spec, run = created([*words(method, options), "cluster=local"], folder)
        job, trainer = started(spec, run, World(0, 1, device))
        if options.compile:
            trainer.network = torch.compile(trainer.network, dynamic=False)
        turns = Turns(job, trainer, options)
        with contextlib.suppress(Enough):
            loop.train(job, trainer, lambda *_: None)
    counted = {side: np.array(seconds[WARM_UP:]) for side, seconds in turns.seconds.items()}
    batch = spec.method.global_batch
    return {
        "method": method,
        "precision": options.precision,
        "compiled": options.compile,
        "batch": batch,
        "images_per_s": {side: spread(batch / seconds) for side, seconds in counted.items()},
        "engine_to": {s: spread(counted["engine"] / seconds) for s, seconds in counted.items() if s != "engine"},
        "idle": turns.idle,
        "peak_gb": {side: peak / 1e9 for side, peak in turns.peaks.items()},
        "planned_gb": planned_gb(method, options),
    }


def spread(values):
    return dict(
        zip(("low", "median", "high"), statistics.quantiles(values.tolist(), n=4, method="inclusive"), strict=True)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="swav, dino, simclr; all where none is named")
    parser.add_argument("--turns", type=int, default=8, help=f"of each side, after {WARM_UP} that is not counted")
    parser.add_argument("--length", type=int, default=6, help="steps a turn")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", choices=["bf16", "fp16", "fp32"], default="bf16")
    parser.add_argument("--compile", action="store_true", help="networks through torch.compile")
    parser.add_argument("--small", action="store_true", help="small networks and crops: shows that it works, no more")
    parser.add_argument("--json", type=Path, help="a file for all figures, rewritten after each method")
    options = parser.parse_args()
    rows = []
    for method in options.methods or list(WHOLE):
        rows.append(measure(method, options))
        found, ours = rows[-1], rows[-1]["images_per_s"]["engine"]["median"]
        how = f"{found['precision']}{', compiled' if found['compiled'] else ''}"
        print(f"{method}, {how}, batch {found['batch']}: engine {ours:.0f} images/s")
        for side, ratio in found["engine_to"].items():
            other = found["images_per_s"][side]["median"]
            spans = f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})"
            print(f"  {side} {other:.0f} images/s; time of a step, engine / {side}: {spans}")
        if found["idle"] is not None:
            peaks = ", ".join(f"{side} {peak:.1f} GB" for side, peak in found["peak_gb"].items())
            planned = f"planned {found['planned_gb']:.1f} GB"
            print(f"  {found['idle']:.1%} of a step without a kernel; peak memory: {peaks}; {planned}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"torch": torch.__version__, "device": options.device, "rows": rows}))


if __name__ == "__main__":
    main()
