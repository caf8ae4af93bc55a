"""python benchmarks/gpu.py [swav] [dino]                    minutes on one GPU; `--device cpu --small` to try it out

SwAV's ResNet-50 on 2x224+6x96 crops and DINO's ViT-S/16 on 2x224+10x96, in bf16: images/s and peak memory of a whole
training step beside a plain loop, and the share of the step in which the GPU computes nothing. Both sides train in one
process, in turns of some steps.

The plain loop: crops of noise that lie on the device as float32, the same networks, loss and kind of optimiser, nothing
else. The engine's side: all of `engine.loop.train` between two steps, with uint8 crops and their draws in pinned
memory, which go to the device and through the photometric stage. Not counted: decoding and cutting, which
benchmarks/data.py measures.
"""

import argparse
import contextlib
import copy
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from launcher.compose.training import resolve
from launcher.plan import plan
from launcher.run import snapshot
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from methods import data
from methods.augment.views import MultiCropView
from methods.data.loader import Batch, Crops
from methods.dino.loss import distillation
from methods.dino.teacher import teacher_targets
from methods.engine import loop
from methods.engine.job import Job
from methods.swav.loss import pseudo_labels, swapped_prediction

WHOLE = {
    "swav": ["method.global_batch=64", "method.batch_norm_group=0", "method.warmup_epochs=0"],
    "dino": ["method.global_batch=64", "method.warmup_epochs=0", "method.teacher_warmup_epochs=0"],
}
SMALL = [
    "method.image_size=32", "method.local_size=16", "method.global_batch=16", "method.local_crops=2",
    "method.hidden=64", "method.precision=fp32",
]  # fmt: skip
SMALLER = {
    "swav": ["method.backbone=small_vgg", "method.prototypes=50"],
    "dino": ["method.backbone=small_vit", "method.outputs=256"],
}
WARM_UP = 2  # turns of each side that are not counted


class PlainLoop:
    """Forward, loss, backward, optimiser; its networks are copies of the trainer's."""

    def __init__(self, job, trainer):
        self._job, self._device = job, job.world.device
        self._student = copy.deepcopy(getattr(trainer, "student", trainer.network))
        self._teacher = copy.deepcopy(trainer.teacher) if hasattr(trainer, "teacher") else None
        parameters = [{"params": list(self._student.parameters())}]
        kind = type(trainer.optimizers[0])
        self._optimizer = kind(parameters, **{"lr": 1e-4, **({"momentum": 0.9} if kind.__name__ != "AdamW" else {})})
        config, batch = job.config, job.config.global_batch
        shapes = [(config.global_crops * batch, config.image_size), (config.local_crops * batch, config.local_size)]
        self._crops = [torch.randn(count, 3, size, size, device=self._device) for count, size in shapes]
        self._centre = torch.zeros(getattr(config, "outputs", 1), device=self._device)

    def steps(self, count):
        for _ in range(count):
            with self._job.autocast():
                loss = self._dino() if self._teacher else self._swav()
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            if self._teacher:
                self._follow()

    def _swav(self):
        config = self._job.config
        _, scores = self._student(self._crops)
        scores = scores.unflatten(0, (-1, config.global_batch))
        labels = pseudo_labels(scores[: config.global_crops].detach(), epsilon=config.epsilon)
        return swapped_prediction(scores, labels, temperature=config.temperature)

    def _dino(self):
        config = self._job.config
        with torch.no_grad():
            taught = self._teacher(self._crops[:1]).unflatten(0, (-1, config.global_batch))
        outputs = self._student(self._crops).unflatten(0, (-1, config.global_batch))
        targets = teacher_targets(taught, self._centre, temperature=config.teacher_temperature, operation="centring")
        self._centre.lerp_(taught.float().mean((0, 1)), 1 - config.centre_momentum)
        return distillation(outputs, targets, temperature=config.temperature)[0]

    @torch.no_grad()
    def _follow(self):
        pairs = zip(self._teacher.parameters(), self._student.parameters(), strict=True)
        mine, theirs = map(list, zip(*pairs, strict=True))
        torch._foreach_lerp_(mine, theirs, 0.004)


class Turns:
    """The trainer's batches, and between two steps, every `length` of them, the plain loop's turn."""

    def __init__(self, job, trainer, length, turns):
        self._job, self._trainer, self._length, self._left = job, trainer, length, turns
        self._batches = itertools.cycle([_batch(job, number) for number in range(3)])
        self.engine, self.plain, self.peaks = [], [], []  # seconds a step; bytes of each side
        self.idle = None
        trainer.steps = self.steps

    def steps(self, epoch, first):
        """The plain loop begins to exist after the engine's first turn, whose peak is so the engine's alone."""
        plain = None
        for turn in range(self._left):
            watched = turn == self._left - 1 and self._job.world.device.type == "cuda"
            with profile(activities=[ProfilerActivity.CUDA]) if watched else contextlib.nullcontext() as seen:
                began = self._now()
                for _ in range(self._length):
                    yield [next(self._batches)]
                seconds = self._now() - began
            if watched:
                self.idle = 1 - _busy(seen) / seconds
                return
            self.engine.append(seconds / self._length)
            if plain is None:
                self.peaks.append(self._peak())
                before = self._allocated()
                plain = PlainLoop(self._job, self._trainer)
            began = self._now()
            plain.steps(self._length)
            self.plain.append((self._now() - began) / self._length)
            if turn == 0:
                self.peaks.append(self._peak() - before)

    def _now(self):
        if self._job.world.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def _allocated(self):
        return torch.cuda.memory_allocated() if self._job.world.device.type == "cuda" else 0

    def _peak(self):
        if self._job.world.device.type != "cuda":
            return 0
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak


def _batch(job, number):
    """Crops of pictures of noise, cut and drawn as for training, in pinned memory."""
    view, size = MultiCropView.of(job.config, job.spec.seed), job.config.global_batch
    rng = np.random.default_rng(number)
    picture = Image.fromarray(rng.integers(0, 256, (375, 500, 3), np.uint8))
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


def measure(method, options):
    """(Turns that have been, global batch)."""
    device = torch.device(options.device)
    steps = options.turns * options.length
    with tempfile.TemporaryDirectory() as folder:
        given = [
            f"method={method}",
            "recipe=paper",
            "data=photos",
            "data.colour=true",
            "cluster=local",
            f"runs={folder}",
        ]
        given += ["method.precision=bf16", "method.epochs=1", "method.checkpoint_every=1000000", *WHOLE[method]]
        spec, recipe = resolve([*given, *(SMALL + SMALLER[method] if options.small else [])])
        run = RunDir(Path(folder) / spec.run_id)
        run.create(spec, plan.make(spec, recipe), lambda: snapshot.take(method, Path(folder)))
        layout = registry.method(method).layout(spec.method, 1)
        dataset = data.build(spec.data, "train")
        job = Job(run, spec, World(0, 1, device), layout, Ledger(run.path, 1, "rank0"), StopFlag(), dataset)
        trainer = registry.load_trainer(method)(job)
        turns = Turns(job, trainer, options.length, options.turns)
        trainer.steps_per_epoch = steps
        loop.train(job, trainer, lambda *_: None)
    return turns, spec.method.global_batch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="swav, dino; both where none is named")
    parser.add_argument("--turns", type=int, default=12, help="of each side, the first 2 not counted")
    parser.add_argument("--length", type=int, default=10, help="steps a turn")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small networks and crops: shows that it works, no more")
    options = parser.parse_args()
    for method in options.methods or list(WHOLE):
        turns, batch = measure(method, options)
        ours, plain = (np.array(side[WARM_UP:]) for side in (turns.engine[: len(turns.plain)], turns.plain))
        low, middle, high = statistics.quantiles(ours / plain, n=4)
        a, b = (batch / statistics.median(side) for side in (ours, plain))
        ratio = f"time of a step, engine / plain: {middle:.3f} ({low:.3f} to {high:.3f})"
        print(f"{method}, batch {batch}: engine {a:.0f} images/s, plain loop {b:.0f}; {ratio}")
        if turns.idle is not None:
            peaks = ", ".join(f"{peak / 1e9:.1f} GB" for peak in turns.peaks)
            print(f"  {turns.idle:.1%} of a step without a kernel; peak memory of engine and plain loop {peaks}")


if __name__ == "__main__":
    main()
