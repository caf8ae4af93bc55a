"""What a trainer gets to work with: its spec, its ranks, its data, and the safe points at which it may be stopped."""

import hashlib
import json
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime.checkpoint import Owners
from launcher.runtime.dist import Vote, World
from launcher.runtime.health import Heart
from launcher.runtime.metrics import Reporter
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.spec.contract import Layout
from launcher.spec.runspec import RunSpec
from methods.data import beside
from methods.data.dataset import ImageDataset, remarks
from methods.data.loader import Batch, View
from methods.data.sampler import Permutation, shares
from methods.engine.clock import Clock
from methods.engine.data_state import DataState
from methods.engine.kept_work import KeptWork
from methods.engine.loading import Loading

GO, STOP, BROKEN, DIVERGED = range(4)  # what the ranks vote on; the largest wins
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class Job:
    """One rank's view of one start of a run."""

    def __init__(
        self,
        run: RunDir,
        spec: RunSpec,
        world: World,
        layout: Layout | None,  # of a step's batch; None where nothing is trained
        ledger: Ledger,
        stop: StopFlag,
        dataset: ImageDataset,
        labelled: tuple[ImageDataset, ImageDataset] | None = None,
        heart: Heart | None = None,
    ):
        self.run, self.spec, self.config, self.world, self.layout = run, spec, spec.method, world, layout
        self.ledger, self.stop, self.dataset = ledger, stop, dataset
        self.labelled = labelled  # (train, test) that k-NN uses; None where there are no labels
        self.heart = heart or Heart(run)  # counts, and is heard of by nobody
        self.vote = Vote(world)
        # Silent until the step to start from is known.
        self.reporter = Reporter(run, main=world.is_main, generation=ledger.generation)
        self.notices = remarks(dataset, *(labelled or ()))  # what the person who watches should know
        for line in self.notices if world.is_main else ():
            print(line, flush=True)  # for the log, where nobody watches
        self.clock = Clock(self.heart)
        self.load = Loading(spec, world, dataset, ledger, self.clock)
        data = DataState(dataset)
        self.keeping = KeptWork(run, world, ledger, data)
        self.owners = Owners(world)
        self.owners.add("data", data)

    def distribute(self, module: nn.Module, group: Any = None, *, ranks: int | None = None) -> nn.Module:
        """`module` with gradients averaged over `group` (all ranks by default), overlapped with backward."""
        module.to(self.world.device)
        if (ranks or self.world.size) == 1:
            return module
        cuda = self.world.device.type == "cuda"
        return DistributedDataParallel(
            module,
            device_ids=[self.world.device] if cuda else None,
            process_group=group,
            broadcast_buffers=False,  # the engine keeps them equal
            # Without it the buckets are rebuilt after the first backward, and a resumed run, whose first backward comes
            # later, sums gradients in another order. On CPU exactness is promised; on GPUs a tolerance, and speed.
            find_unused_parameters=not cuda,
            gradient_as_bucket_view=True,
        )

    def safe_point(self, stage: str, done: int, total: int) -> None:
        """Say what is being done; stop here, on every rank, if any rank was told to. Collective. Raises Stopped."""
        self.reporter.progress(stage=stage, done=done, total=total, unkept_s=self.keeping.unkept_s)
        self.heart.mark(stage)
        outcome = self.vote.now(self.verdict())
        self.heart.point()
        self.decide(outcome)

    def notice(self, said: str) -> None:
        """Say it in the log and to whoever watches, once."""
        if self.world.is_main and said not in self.notices:
            self.notices.append(said)
            print(said, flush=True)
            self.reporter.progress(force=True, notices=self.notices)

    def verdict(self) -> int:
        """This rank's vote."""
        if self.load.too_many_broken:
            return BROKEN
        return STOP if self.stop else GO

    def decide(self, outcome: int) -> None:
        """Act on what all ranks agreed: raises Stopped, or InputError where too many images are broken."""
        if outcome == STOP:
            raise Stopped
        if outcome == BROKEN:
            raise self.load.broken_error()

    def autocast(self) -> torch.autocast:
        """The arithmetic of the spec's precision."""
        dtype, kind = PRECISIONS[self.config.precision], self.world.device.type
        return torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32)

    def seed_for(self, purpose: str, *numbers: int) -> int:
        """A 63-bit seed for one purpose, the same whatever happened before."""
        digest = hashlib.sha256(json.dumps([self.spec.seed, purpose, *numbers]).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    def batches_in_turn(
        self, view: View, epoch: int, first: int, steps: int, columns: Collection[str] = ()
    ) -> Iterator[list[Batch]]:
        """The micro-batches of this rank for the steps `first` to `steps` of `epoch`: a permutation of the images from
        (seed, epoch), of which the ranks, and the passes of each, take the global batches in order, so that the same
        images share batch statistics whatever the number of ranks.

        columns: what is to travel beside the images, of `methods.data.beside.COLUMNS`. Raises InputError where the data
        set has no such thing.
        """
        beside.check(self.dataset, columns, self.spec.data)
        return self._in_turn(view, epoch, first, steps, columns)

    def _in_turn(
        self, view: View, epoch: int, first: int, steps: int, columns: Collection[str]
    ) -> Iterator[list[Batch]]:
        order, layout = Permutation(len(self.dataset), self.seed_for("order", epoch)), self.layout
        mine = shares(
            order,
            range(first, steps),
            rank=self.world.rank,
            world_size=self.world.size,
            accumulation=layout.accumulation,
            per_rank=layout.per_gpu_batch,
        )
        # Where each pass of this rank lies in a global batch, as `shares` deals it out.
        images = layout.accumulation * layout.per_gpu_batch
        passes = np.arange(images).reshape(layout.accumulation, -1) + self.world.rank * images
        requests = (
            beside.request(self.dataset, columns, ids, passes[number % layout.accumulation], epoch)
            for number, ids in enumerate(mine)
        )
        stream = self.load(view, requests)
        for _ in range(first, steps):
            yield [next(stream) for _ in range(layout.accumulation)]
