"""How long a rank takes over its own part of a step, and which rank is slow (run/slow_ranks.py decides).

All ranks take equally long over a step: the fast ones wait in collectives for the slow one. So a rank measures from
where the data of a step are asked for to behind the optimisers, and leaves out what lies between the begin and the end
of each collective that Python calls, and between the end of its own backward pass and the return from it, where
DistributedDataParallel waits for the last gradients. On a GPU, where a collective that waits is a kernel of the step's
stream, the marks are events in that stream, and nobody waits for them; there a host that comes late with data or with
kernels is a gap between two of them.

It cannot see a slow network, for which all ranks wait alike. What waits in another way, for a collective that was
called to be asynchronous, say, or within DistributedDataParallel's forward pass where it sends buffers (the engine's
does not), counts as work: that hides a slow rank, or takes for slow one that waits for it.
"""

import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist

from launcher.run import heartbeats
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.slow_ranks import WINDOW, Judge
from launcher.runtime.dist import World

WARM_UP = 20  # steps of a start
EVERY = 5  # steps, of which a GPU measures one: an event takes microseconds, and SyncBatchNorm has a hundred pairs
SLOWEST = 0.1  # of a window's steps, which do not count: a pause of the machine is nobody's pace
# Of torch.distributed; SyncBatchNorm's and those of methods from elsewhere are called there, too.
COLLECTIVES = (
    "all_gather", "all_gather_into_tensor", "all_gather_object", "all_gather_single", "all_reduce", "all_to_all",
    "all_to_all_single", "barrier", "broadcast", "broadcast_object_list", "gather", "reduce", "reduce_scatter",
    "reduce_scatter_single", "reduce_scatter_tensor", "scatter",
)  # fmt: skip


class Marks(Protocol):
    """Moments in time, which may be known only later."""

    def now(self) -> Any: ...
    def known(self, marks: Sequence[Any]) -> bool: ...
    def seconds(self, begin: Any, end: Any) -> float: ...
    def free(self, marks: Sequence[Any]) -> None: ...


class HostMarks:
    """By this process's clock."""

    def now(self) -> float:
        return time.perf_counter()

    def known(self, marks: Sequence[float]) -> bool:
        return True

    def seconds(self, begin: float, end: float) -> float:
        return end - begin

    def free(self, marks: Sequence[float]) -> None:
        pass


class StreamMarks:
    """In the current CUDA stream: an event each, used again and again."""

    def __init__(self) -> None:
        self._free: list[torch.cuda.Event] = []

    def now(self) -> torch.cuda.Event:
        event = self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def known(self, marks: Sequence[torch.cuda.Event]) -> bool:
        return all(event.query() for event in reversed(marks))

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return begin.elapsed_time(end) / 1000

    def free(self, marks: Sequence[torch.cuda.Event]) -> None:
        self._free += marks


class Stopwatch:
    """Own time of one step after another: between `begin` and `end`, but for what `waits` and `backward` leave out."""

    def __init__(self, marks: Marks):
        self._marks = marks
        self._step: list[Any] = []  # begin of work, its end, begin of work, ...; empty where nothing is measured
        self._over: deque[list[Any]] = deque()
        self._threads: set[int] = set()

    def begin(self) -> None:
        self.leave_out()
        self._threads = {threading.get_ident()}
        self._step.append(self._marks.now())

    def end(self) -> None:
        if self._step:
            self._over.append([*self._step, self._marks.now()])
            self._step = []

    def leave_out(self) -> None:
        """The step that has begun does not count."""
        self._marks.free(self._step)
        self._step = []

    def waits(self, collective: Callable) -> Callable:
        """`collective`, whose time counts as waiting in a step that is measured, and there in its own threads alone:
        that of a checkpoint is beside it."""

        @functools.wraps(collective)
        def call(*arguments: Any, **named: Any) -> Any:
            if not self._step or threading.get_ident() not in self._threads:
                return collective(*arguments, **named)
            self._step.append(self._marks.now())
            try:
                return collective(*arguments, **named)
            finally:
                self._step.append(self._marks.now())

        return call

    def backward(self, loss: torch.Tensor) -> None:
        """`loss.backward()`; what comes after this rank's own part of it is waiting."""
        if not self._step:
            loss.backward()
            return
        before = len(self._step)

        def own_part_is_over() -> None:
            self._step.append(self._marks.now())

        def begin(_: torch.Tensor) -> None:
            self._threads.add(threading.get_ident())  # that of a GPU's backward passes
            # Called in turn when the graph is through, and this is the first of them: DistributedDataParallel waits in
            # one that it queues with its last bucket.
            torch.autograd.Variable._execution_engine.queue_callback(own_part_is_over)

        loss.register_hook(begin)
        loss.backward()
        if (len(self._step) - before) % 2:
            self._step.append(self._marks.now())

    def read(self) -> Iterator[float]:
        """Seconds of each step that was not read before and whose marks are known by now."""
        while self._over and self._marks.known(self._over[0]):
            marks = self._over.popleft()
            yield sum(self._marks.seconds(*marks[n : n + 2]) for n in range(0, len(marks), 2))
            self._marks.free(marks)


_stopwatch = Stopwatch(HostMarks())  # of this process; measures nothing as long as nobody begins


def backward(loss: torch.Tensor) -> None:
    """`loss.backward()`, in a step that a Pace may be measuring."""
    _stopwatch.backward(loss)


class Pace:
    """Measures the steps of a start, and tells rank 0 of every WINDOW of them, which writes `slow_rank` and
    `slow_rank_over` to the ledger. Nobody waits for anybody: what is told is read when it has arrived.

    `begin` and `end` are around a step, of which nothing is measured without `begin`; `end` is everybody's, after each.
    Until `close` the collectives of torch.distributed are wrapped.
    """

    def __init__(self, run: RunDir, world: World, ledger: Ledger):
        global _stopwatch
        self._run, self._world, self._ledger, self._judge = run, world, ledger, Judge()
        cuda = world.device.type == "cuda"
        self._every, self._steps = EVERY if cuda else 1, 0
        self._own: list[float] = []
        self._told: tuple[int, torch.Tensor, list[torch.Tensor] | None, Any] | None = None
        self._watch = _stopwatch = Stopwatch(StreamMarks() if cuda else HostMarks())
        names = [name for name in COLLECTIVES if hasattr(dist, name)] if world.size > 1 else []
        self._unwrapped = {name: getattr(dist, name) for name in names}
        for name, collective in self._unwrapped.items():
            setattr(dist, name, self._watch.waits(collective))

    def close(self) -> None:
        self._watch.leave_out()
        for name, collective in self._unwrapped.items():
            setattr(dist, name, collective)

    def begin(self) -> None:
        """Before the data of a step are asked for that is like the others."""
        if self._world.size > 1 and self._steps % self._every == 0:
            self._watch.begin()

    def leave_out(self) -> None:
        """The next step is unlike the others: the first of an epoch, say."""
        self._watch.leave_out()

    def end(self, step: int) -> None:
        """After the optimisers. step: how many are done."""
        if self._world.size == 1:
            return
        self._watch.end()
        self._own += self._watch.read()
        self._hear()
        self._steps += 1
        if self._steps == WARM_UP:
            self._own.clear()
        elif self._steps > WARM_UP and (self._steps - WARM_UP) % WINDOW == 0:
            self._tell(step)

    def _tell(self, step: int) -> None:
        """Collective, but nobody waits: one number of each rank to rank 0."""
        usual = sorted(self._own)[: len(self._own) - int(SLOWEST * len(self._own))]
        mine = torch.tensor([sum(usual) / len(usual) if usual else float("nan")], dtype=torch.float64)
        self._own.clear()
        if self._told is not None:
            self._told[-1].wait()  # a window ago: it has long arrived
            self._hear()
        parts = [torch.empty_like(mine) for _ in range(self._world.size)] if self._world.is_main else None
        work = dist.gather(mine, parts, dst=0, group=self._world.control, async_op=True)
        self._told = (step, mine, parts, work)  # kept until it has arrived

    def _hear(self) -> None:
        if self._told is None or not self._told[-1].is_completed():
            return
        (step, _, parts, work), self._told = self._told, None
        work.wait()  # raises where a rank has gone, as votes do
        for change in self._judge.look(torch.cat(parts).tolist()) if parts else ():
            node = heartbeats.host(self._run, change.rank) or "?"
            event = "slow_rank" if change.slow else "slow_rank_over"
            self._ledger.write(event, rank=change.rank, node=node, ratio=round(change.ratio, 3), step=step)
            what = "takes" if change.slow else "no longer is slow: it takes"
            print(f"rank {change.rank} on {node} {what} {change.ratio:.2f} times as long as the others", flush=True)
