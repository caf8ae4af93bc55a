"""RotNet, padded: see spec.py."""

import os
import time

import torch

from launcher.runtime.stateful import ValueState
from methods.data.loader import Batch
from methods.engine.job import Job
from methods.engine.trainer import Loss
from methods.rotnet.trainer import RotNet


class Padded(RotNet):
    """RotNet's steps, each of which changes the pad, is written down, and waits as for a GPU."""

    def __init__(self, job: Job):
        super().__init__(job)
        self._pad = torch.zeros(max(1, job.config.pad_mb * 250_000))
        job.owners.add("pad", ValueState(lambda: {"pad": self._pad}, lambda state: self._pad.copy_(state["pad"])))
        self._executed = os.open(job.config.executed, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._executed, b"start\n")
        self._began = time.monotonic()

    def loss(self, batch: Batch, step: int) -> Loss:
        found = super().loss(batch, step)
        time.sleep(max(0.0, self._began + self.job.config.step_seconds - time.monotonic()))
        self._began = time.monotonic()
        self._pad += 1
        os.write(self._executed, b"%d\n" % self._pad[0].item())
        return found
