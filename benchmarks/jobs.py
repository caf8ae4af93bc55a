"""A training that a benchmark looks at from within: what `sslrun` would start, without the launcher around it."""

from pathlib import Path

import torch

from launcher.compose.training import resolve
from launcher.plan import plan
from launcher.run import snapshot
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.dist import World
from launcher.runtime.preempt import StopFlag
from launcher.spec import registry
from methods import data
from methods.engine.job import Job

NEVER = "method.checkpoint_every=1000000"
LONGEST = 1_000_000  # epochs


def created(words, folder):
    """The spec of `words` with so many epochs that it never ends, and its run in `folder`."""
    spec, recipe = resolve([NEVER, f"method.epochs={LONGEST}", *words, f"runs={folder}"])
    run = RunDir(Path(folder) / spec.run_id)
    run.create(spec, plan.make(spec, recipe), lambda: snapshot.take(spec.method.name, Path(folder)))
    return spec, run


def started(spec, run, world=None):
    """(job, trainer) of one rank of that run."""
    world = world or World(0, 1, torch.device("cpu"))
    layout = registry.method(spec.method.name).layout(spec.method, world.size)
    ledger = Ledger(run.path, 1, f"rank{world.rank}")
    job = Job(run, spec, world, layout, ledger, StopFlag(), data.build(spec.data, "train"))
    return job, registry.load_trainer(spec.method.name)(job)
