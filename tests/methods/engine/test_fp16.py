"""In fp16 a gradient that overflows on one rank makes all of them skip the step, and halve the scale alike.

Run as a script, this file is the ranks.
"""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from launcher.runtime import dist
from methods.engine import _agree_on_overflow

RANKS, SCALE, RATE = 2, 64.0, 0.5


def steps(world, gradients):
    """[(weight, its scale)] after each step; one weight, whose gradient each rank has for itself."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([weight], lr=RATE)
    scaler = torch.amp.GradScaler("cpu", init_scale=SCALE)
    job, trainer = SimpleNamespace(world=world), SimpleNamespace(optimizers=[optimizer])
    found = []
    for gradient in gradients:
        optimizer.zero_grad()
        scaler.scale((weight * torch.tensor([gradient, 1.0])).sum()).backward()
        _agree_on_overflow(job, trainer, scaler)
        scaler.step(optimizer)
        scaler.update()
        found.append((weight.tolist(), scaler.get_scale()))
    return found


def test_a_step_that_overflows_on_one_rank_is_taken_by_none(tmp_path):
    environment = {
        **os.environ,
        "WORLD_SIZE": str(RANKS),
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    started = [
        subprocess.Popen([sys.executable, __file__, tmp_path], env={**environment, "RANK": str(rank)})
        for rank in range(RANKS)
    ]
    assert [process.wait(60) for process in started] == [0] * RANKS
    zeroth, first = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(RANKS))
    assert zeroth == [([0.5, 0.5], SCALE), ([0.5, 0.5], SCALE / 2), ([0.5, 0.5], SCALE / 4), ([0.0, 0.0], SCALE / 4)]
    assert first == zeroth


def main(folder: Path) -> None:
    world = dist.init((folder / "rendezvous").as_uri())
    inf, nan = float("inf"), float("nan")
    gradients = [1.0, 1.0, nan, 1.0] if world.rank == 0 else [1.0, inf, 1.0, 1.0]
    torch.save(steps(world, gradients), folder / f"{world.rank}.pt")
    dist.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
