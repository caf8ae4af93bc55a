"""The job that submitit and Hydra's launcher start: RotNet's tiny recipe, padded, as one would write it by hand.

It saves every `every` steps with torch.save, fsync and a rename, and goes on from the newest save when it is started.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from methods import backbones, data
from methods.augment.views import TrainView
from methods.data.sets.photos.spec import PhotosData
from methods.rotnet.spec import tiny


@dataclass
class Options:
    """`folder`: of the saves; `executed`: a file that gets a line for every start and every step; `done`: a file that
    gets the hash of the final weights."""

    folder: str
    executed: str
    done: str
    steps: int
    every: int
    pad_mb: int
    step_seconds: float
    images: int


class Training:
    """Everything that changes: network, momentum, pad, step."""

    def __init__(self, options: Options):
        self.options, self.config = options, tiny().method
        torch.set_num_threads(1)
        torch.manual_seed(0)
        backbone = backbones.build(self.config.backbone, dropout=self.config.dropout)
        self.network = torch.nn.Sequential(backbone, torch.nn.ReLU(), torch.nn.Linear(backbone.feature_dim, 4))
        self.sgd = torch.optim.SGD(self.network.parameters(), self.config.lr, self.config.momentum)
        self.dataset = data.build(PhotosData(images=options.images), "train")
        self.view = TrainView(0, self.config.image_size, self.config.crop_scale)
        self.pad, self.step = torch.zeros(options.pad_mb * 250_000), 0
        self.newest = Path(options.folder, "state.pt")
        self._executed = os.open(options.executed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def run(self) -> None:
        """From the newest save to the end."""
        os.write(self._executed, b"start\n")
        if self.newest.exists():
            self._load(torch.load(self.newest, weights_only=True))
        self.network.train()
        while self.step < self.options.steps:
            began = time.monotonic()
            self._take_step()
            time.sleep(max(0.0, began + self.options.step_seconds - time.monotonic()))
            os.write(self._executed, b"%d\n" % self.step)
            if self.step % self.options.every == 0:
                self.save()
        weights = b"".join(tensor.numpy().tobytes() for tensor in self.network.state_dict().values())
        Path(self.options.done).write_text(hashlib.sha256(weights).hexdigest())

    def save(self) -> None:
        beside = self.newest.with_suffix(".new")
        state = {"network": self.network.state_dict(), "sgd": self.sgd.state_dict(), "pad": self.pad, "step": self.step}
        with beside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(self.newest)

    def _load(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.sgd.load_state_dict(state["sgd"])
        self.pad.copy_(state["pad"])
        self.step = state["step"]

    def _take_step(self) -> None:
        batch, per_epoch = self.config.global_batch, self.options.images // self.config.global_batch
        epoch, number = divmod(self.step, per_epoch)
        torch.manual_seed(self.step)
        order = np.random.default_rng(epoch).permutation(self.options.images)
        ids = order[number * batch : (number + 1) * batch].tolist()
        images = torch.from_numpy(np.stack([self.view(self.dataset.image(i), i, epoch) for i in ids]))
        turned = torch.cat([torch.rot90(images, angle, (2, 3)) for angle in range(4)])
        self.sgd.zero_grad(set_to_none=True)
        cross_entropy(self.network(turned), torch.arange(4).repeat_interleave(len(images))).backward()
        self.sgd.step()
        self.pad += 1
        self.step += 1
