"""What a trainer gets to work with: its spec, its ranks, its data, and the safe points at which it may be stopped."""

import contextlib
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime import uncompiled
from launcher.runtime.checkpoint import Registry
from launcher.runtime.dist import Vote, World
from launcher.runtime.health import Heart
from launcher.runtime.metrics import Reporter
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.runtime.stateful import ValueState
from launcher.runtime.store import Store, open_store
from launcher.spec.contract import Layout
from launcher.spec.runspec import RunSpec
from methods.data.broken import Tally
from methods.data.dataset import BrokenImage, ImageDataset
from methods.data.loader import Batch, Request, View, batches
from methods.data.prefetch import prefetched
from methods.data.sampler import Permutation, shares

GO, STOP, BROKEN, DIVERGED = range(4)  # what the ranks vote on; the largest wins
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NAMED = 50  # broken files that one event of the ledger names
PROBED = 32  # images decoded before a run begins


class Job:
    """One rank's view of one life of a run."""

    def __init__(
        self,
        run: RunDir,
        spec: RunSpec,
        world: World,
        layout: Layout,
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
        self.registry = Registry(world)
        self.registry.add("data", ValueState(self._data, self._check_data))
        self.vote = Vote(world)
        self.reporter: Reporter | None = None  # speaks once the step to start from is known
        self.save: Callable[[], None] = lambda: None  # the engine's: begin to save the state as it is now
        self._store: Store | None = None  # of the work under way between two steps
        self._worked_at, self._unkept_s = -1, 0.0  # the step of the last such work, and how much of it no file holds
        self.notices: list[str] = []  # what the person who watches should know
        self.seconds: dict[str, float] = defaultdict(float)  # wall time by what it went into
        self._tallies: dict[int, Tally] = {}  # by dataset

    def _data(self) -> dict[str, Any]:
        """What the positions that the state speaks of refer to: size and a sample of the names."""
        size = len(self.dataset)
        names = [self.dataset.name_of(int(i)) for i in np.linspace(0, size - 1, PROBED)]
        return {"images": size, "names": hashlib.sha256(json.dumps(names).encode()).hexdigest()}

    def _check_data(self, saved: Mapping[str, Any]) -> None:
        if saved != self._data():
            reason = f"the data changed since this run's checkpoint ({saved['images']} images then)"
            raise InputError.of("data", f"{len(self.dataset)} images", reason, "restore them, or start a new run")

    # -- ranks ---------------------------------------------------------------------------------------------------

    @uncompiled.unasked()
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
        if self.reporter is not None:
            self.reporter.progress(stage=stage, done=done, total=total, unkept_s=self.unkept_s)
        self.heart.mark(stage)
        outcome = self.vote.now(self.verdict())
        self.heart.point()
        self.decide(outcome)

    def verdict(self) -> int:
        """This rank's vote."""
        if any(tally.too_many for tally in self._tallies.values()):
            return BROKEN
        return STOP if self.stop else GO

    def decide(self, outcome: int) -> None:
        """Act on what all ranks agreed: raises Stopped, or InputError where too many images are broken."""
        if outcome == STOP:
            raise Stopped
        if outcome == BROKEN:
            raise self.broken_error()

    def autocast(self) -> torch.autocast:
        """The arithmetic of the spec's precision."""
        dtype, kind = PRECISIONS[self.config.precision], self.world.device.type
        return torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32)

    # -- work between two steps ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def keeping(
        self, step: int, key: Callable[[], Mapping[str, Any]], *, needed: int, every_s: float | None
    ) -> Iterator[Store]:
        """Where the work of minutes or hours between `step` and the next is kept until a checkpoint of a later step is
        committed, so that a stop or a kill in its middle costs `every_s` seconds of it. Collective.

        key: called on rank 0, what the work depends on, as JSON. needed: bytes that it will take. every_s: None keeps
        nothing; nor does a disk that is too small. What the next life must do again is booked as lost_seconds.
        """
        self.save()
        given = {"code": self.run.code()["digest"], "data": self._data()}
        reserve = int(2e9 * self.run.plan()["disk_gb"])  # the checkpoint after this one is written beside it
        store, why = open_store(
            self.run, self.world, step, lambda: {**given, **key()}, needed=needed, reserve=reserve, every_s=every_s
        )
        keeps = store.active
        if self.world.is_main and why:
            print(f"work at step {step} {'begins anew' if keeps else 'is not kept'}: {why}", flush=True)
        self._store, self._worked_at = store, step
        try:
            yield store
            store.wait()
        except Stopped:
            store.flush()
            raise
        finally:
            self._unkept_s, self._store = store.unkept_s, None
            store.close()
            if self.world.is_main or store.trouble:
                said = {"kept": keeps and not store.trouble, "why": store.trouble or why, "resumed": store.resumed}
                self.ledger.write("work", step=step, **said, **store.figures)

    def committed(self, step: int) -> None:
        """A checkpoint of `step` stands: nothing of the work before it can be lost any more."""
        if step > self._worked_at:
            self._unkept_s = 0.0

    @property
    def unkept_s(self) -> float:
        """Seconds of such work that would have to be done again if this process were killed now."""
        return round(self._store.unkept_s if self._store else self._unkept_s, 1)

    # -- data ----------------------------------------------------------------------------------------------------

    def load(
        self, view: View, requests: Iterable[Request], *, dataset: ImageDataset | None = None, drop: bool = False
    ) -> Iterator[Batch]:
        """Batches with broken images counted. `drop` leaves them out; otherwise good samples of the batch stand in.

        On a GPU their images are there already, a batch ahead of the step; ids and columns are in host memory.
        """
        dataset, device = dataset or self.dataset, self.world.device
        tally = self._tallies.setdefault(id(dataset), Tally(dataset, self.spec.data.max_broken))
        made = batches(
            dataset,
            view,
            requests,
            workers=self.config.workers,
            pin_memory=device.type == "cuda",
            replace_broken=not drop,
        )
        stream = prefetched(made, device)
        with contextlib.closing(made), contextlib.closing(stream):
            while True:
                try:
                    with self.clock("data"):
                        batch = next(stream, None)
                except BrokenImage as error:  # not one of a batch: no good image can stand in
                    raise InputError(f"data: {error}; mend them") from None
                if batch is None:
                    return
                fresh = tally.add(batch.ids.numpy(), batch.broken)
                if fresh:
                    self.ledger.write("broken_images", count=self.broken, files=fresh[:NAMED])
                yield batch

    def batches_in_turn(self, view: View, epoch: int, first: int, steps: int) -> Iterator[list[Batch]]:
        """The micro-batches of this rank for the steps `first` to `steps` of `epoch`: a permutation of the images from
        (seed, epoch), of which the ranks, and the passes of each, take the global batches in order, so that the same
        images share batch statistics whatever the number of ranks."""
        order, layout = Permutation(len(self.dataset), self.seed_for("order", epoch)), self.layout
        mine = shares(
            order,
            range(first, steps),
            rank=self.world.rank,
            world_size=self.world.size,
            accumulation=layout.accumulation,
            per_rank=layout.per_gpu_batch,
        )
        stream = self.load(view, (Request(ids, epoch, {}) for ids in mine))
        for _ in range(first, steps):
            yield [next(stream) for _ in range(layout.accumulation)]

    @property
    def broken(self) -> int:
        """Images that this rank could not decode in this life."""
        return sum(len(tally.reasons) for tally in self._tallies.values())

    def broken_error(self) -> InputError:
        """Collective: names the files of all ranks."""
        mine = [reason for tally in self._tallies.values() for reason in tally.reasons.values()]
        gathered = sorted({reason for part in self.world.gather(mine) for reason in part})
        return InputError.of(
            "data.max_broken",
            self.spec.data.max_broken,
            f"{len(gathered)} images cannot be decoded, more than this share: {', '.join(gathered[:10])}",
            "mend them and resume, or start a new run without them or with a larger share",
        )

    # -- randomness ----------------------------------------------------------------------------------------------

    def seed_for(self, purpose: str, *numbers: int) -> int:
        """A 63-bit seed for one purpose, the same whatever happened before."""
        digest = hashlib.sha256(json.dumps([self.spec.seed, purpose, *numbers]).encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    # -- time ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def clock(self, what: str) -> Iterator[None]:
        """Book the wall time of a block under `what`, without what blocks inside it book for themselves."""
        start, inside, outer = time.perf_counter(), sum(self.seconds.values()), self.heart.stage
        self.heart.mark(what)
        try:
            yield
        finally:
            self.heart.mark(outer)
            booked = sum(self.seconds.values()) - inside
            self.seconds[what] += time.perf_counter() - start - booked


def probe(dataset: ImageDataset) -> None:
    """Decode a few images before anything starts. Raises InputError where there are none, or none is readable."""
    if not len(dataset):
        raise InputError("data: it holds no image to train on; give another folder")
    tried = sorted({int(i) for i in np.linspace(0, len(dataset) - 1, PROBED)})
    reasons = []
    for index in tried:
        try:
            dataset.image(index)
            return
        except BrokenImage as error:
            reasons.append(str(error))
    raise InputError(
        f"data: none of {len(tried)} images tried can be decoded, the first: {reasons[0]}; "
        "give a folder with readable images"
    )
