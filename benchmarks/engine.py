"""python benchmarks/engine.py [RUN]        some minutes; with RUN also where the time of that finished run went.

The engine's step beside a bare PyTorch loop, for DeeperCluster's and RotNet's demo settings with batches so large that
a step takes 50 to 100 ms. Both sides train in one process, in turns of some steps, on the same photographs with the
same views, network, loss, optimiser and threads.

Counted on the engine's side: `methods.engine.loop.train` between two steps, loading through `methods.data.loader`,
votes, watching the loss, learning rate, metrics, TensorBoard, progress.json, and epochs that end. Counted on the bare
side: cutting the views in a plain loop, forward, backward, SGD. Not counted: clustering, checkpoints, evaluation.
"""

import argparse
import contextlib
import copy
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import numpy as np
import torch
from jobs import created, started
from torch.nn.functional import cross_entropy, linear

from launcher.run.folder import RunDir
from methods.augment.views import TrainView
from methods.engine import loop

SETTINGS = {
    "deepercluster": [
        "method.global_batch=128", "method.rotation_epochs=0", "method.reassign_every=9999",
    ],
    "rotnet": ["method.global_batch=32"],
}  # fmt: skip
WARM_UP = 2  # turns of each side that are not counted


def deepercluster_loss(trainer, network, parameters, images, labels):
    """Eq. 3.4 on a batch whose images lie group by group; `parameters`: W [4m, k, d] and its bias."""
    groups, share = trainer.job.config.groups, len(images) // trainer.job.config.groups
    parts = images.split(share)
    images = torch.cat([torch.rot90(part, s % 4, (2, 3)) for s, part in enumerate(parts)])
    features, scores = network(images)
    loss = cross_entropy(scores, torch.arange(groups).repeat_interleave(share))
    W, bias = parameters
    sub_scores = torch.cat([linear(part, W[s], bias[s]) for s, part in enumerate(features.split(share))])
    return loss + cross_entropy(sub_scores, labels)


def rotnet_loss(trainer, network, parameters, images, labels):
    """All four turns of each image."""
    turned = torch.cat([torch.rot90(images, angle, (2, 3)) for angle in range(4)])
    return cross_entropy(network(turned), torch.arange(4).repeat_interleave(len(images)))


class BareLoop:
    """What one would write by hand: views, forward, backward, SGD; its network is a copy of the trainer's."""

    def __init__(self, job, trainer):
        self._job, self._trainer, config = job, trainer, job.config
        self._network = copy.deepcopy(trainer.network)
        self._parameters = []
        self._loss = rotnet_loss
        if config.name == "deepercluster":
            self._loss = deepercluster_loss
            self._parameters = [p.detach().clone().requires_grad_() for p in trainer.sub.parameters()]
            for parameter in self._parameters:
                parameter.register_hook(lambda gradient: gradient * config.groups)
        options = {"lr": config.lr, "momentum": config.momentum, "weight_decay": config.weight_decay}
        self._sgd = torch.optim.SGD([*self._network.parameters(), *self._parameters], **options)
        self._view = TrainView(job.spec.seed, config.image_size, config.crop_scale)
        self._rng, self._epoch = np.random.default_rng(0), 0
        self._order = np.empty(0, np.int64)

    def steps(self, count):
        batch, dataset = self._job.config.global_batch, self._job.dataset
        self._network.train()
        for _ in range(count):
            if len(self._order) < batch:
                self._order, self._epoch = self._rng.permutation(len(dataset)), self._epoch + 1
            ids, self._order = self._order[:batch].tolist(), self._order[batch:]
            images = torch.from_numpy(np.stack([self._view(dataset.image(i), i, self._epoch) for i in ids]))
            labels = torch.tensor([i % self._job.config.clusters for i in ids]) if self._parameters else None
            self._sgd.zero_grad(set_to_none=True)
            loss = self._loss(self._trainer, self._network, self._parameters, images, labels)
            loss.backward()
            self._sgd.step()
            loss.item()


class Enough(Exception):
    """All turns have been."""


class Turns:
    """Between two of the engine's steps, every `length` steps: note its time, and give the bare loop its turn.

    Times are (wall, CPU) seconds a step; CPU seconds say more on a machine that others use too.
    """

    def __init__(self, job, trainer, length, turns):
        self._job, self._trainer, self._length, self._turns = job, trainer, length, turns
        self._bare, self._steps, self._done = None, trainer.steps, 0
        self._began = self._now()
        self.engine, self.bare = [], []  # one row a turn
        trainer.steps = self.steps

    def steps(self, epoch, first):
        stream = self._steps(epoch, first)
        while True:
            if self._done % self._length == 0:
                self._turn()
            self._done += 1
            batches = next(stream, None)
            if batches is None:
                self._done -= 1
                return
            yield batches

    def _turn(self):
        if self._bare is None:
            self._bare = BareLoop(self._job, self._trainer)
        elif self._done:
            self.engine.append((self._now() - self._began) / self._length)
            began = self._now()
            self._bare.steps(self._length)
            self.bare.append((self._now() - began) / self._length)
            if len(self.bare) == self._turns:
                raise Enough
        self._began = self._now()

    @staticmethod
    def _now():
        return np.array([time.perf_counter(), time.process_time()])


def measure(method, turns, length, threads):
    """((wall, CPU) seconds a step of the engine, of the bare loop: [turns, 2] each; global batch)."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        spec, run = created([f"method={method}", "recipe=demo", *SETTINGS[method]], folder)
        job, trainer = started(spec, run)
        measured = Turns(job, trainer, length, turns)
        with contextlib.suppress(Enough):
            loop.train(job, trainer, lambda *_: None)
    return *(np.stack(side[WARM_UP:]) for side in (measured.engine, measured.bare)), spec.method.global_batch


def shares(path):
    """Where the time of a finished run went, from what its ledger says."""
    run = RunDir(path)
    history = run.history()
    finished = history.last("finished")
    if not finished:
        raise SystemExit(f"{path}: no `finished` event; give the folder of a finished run")
    start = history.of(finished["generation"]).last("start")
    total, seconds = finished["time"] - start["time"], finished["seconds"]
    print(f"\n{run.id}: {total:.1f} s from start to finish\n")
    print(f"{'':34} seconds  share")
    names = {"data": "data loading", "training": "forward, backward, optimiser"}
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"{names.get(name, name):34} {value:7.1f}  {value / total:5.1%}")
    rest = total - sum(seconds.values())
    print(f"{'start-up and the rest':34} {rest:7.1f}  {rest / total:5.1%}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path, help="the folder of a finished run")
    parser.add_argument("--turns", type=int, default=30, help="of each side, the first 2 not counted")
    parser.add_argument("--length", type=int, default=10, help="steps a turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only-shares", action="store_true")
    options = parser.parse_args()
    if not options.only_shares:
        print(f"{options.turns - WARM_UP} turns of {options.length} steps each, {options.threads} threads; medians\n")
        print(f"{'':13} batch  {'':4}   engine      bare   engine / bare (quartiles of neighbouring turns)")
        for method in SETTINGS:
            ours, bare, batch = measure(method, options.turns, options.length, options.threads)
            for column, name in enumerate(("wall", "CPU")):
                a, b = (1000 * statistics.median(side[:, column]) for side in (ours, bare))
                low, middle, high = statistics.quantiles(ours[:, column] / bare[:, column], n=4)
                figures = f"{a:6.1f} ms {b:6.1f} ms   {middle:.3f} ({low:.3f} to {high:.3f})"
                print(f"{method:13} {batch:5}  {name:4} {figures}")
    if options.run:
        shares(options.run)


if __name__ == "__main__":
    main()
