"""python benchmarks/profiles.py [METHOD ...] [--ranks 1,2] [--parts] [--json FILE]      a minute for each method.

Where a step goes, of every registered method: its demo recipe on the photographs, with a batch so large that a step of
one rank takes 50 to 100 ms, between two calls for the next batch, all epochs that begin and end there included. With
one rank, and with two gloo ranks of as many images each; a rank has one thread.

forward, backward: `loss` and its gradients. optimiser: it, and what the method does before and behind it (clipping, a
teacher that follows). data: making batches, here in the same process. photometrics: the stage that a GPU would run.
collectives: from the call of each to its return, votes among them, and what DistributedDataParallel waits for behind a
rank's own part of the backward pass; so two ranks that are not equally fast wait here. engine: ALL that is left, of
which --parts tells more. Not counted: clustering, evaluation, checkpoints.

Timers lie around the calls, put there by this file alone. A moment belongs to the innermost of them. What they take
themselves is known from calls of nothing, and taken off the engine's share as far as it lies there. Wall time, and CPU
time of the thread that trains, with other threads of its process (heart beats, TensorBoard) in the engine's share of
one rank. The engine beside a loop without it is benchmarks/engine.py's.
"""

import argparse
import contextlib
import functools
import inspect
import json
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import torch
import torch.distributed
import torch.multiprocessing as mp
from jobs import created, started

from launcher.run.ledger import Ledger
from launcher.runtime import dist
from launcher.runtime.dist import Vote
from launcher.runtime.health import Heart
from launcher.runtime.metrics import Reporter
from launcher.runtime.pace import COLLECTIVES, Pace
from launcher.spec import registry
from methods.engine import loading, loop
from methods.engine.clock import Clock
from methods.engine.collapse_watch import CollapseWatch
from methods.engine.evaluations import Evaluations
from methods.engine.loss_watch import LossWatch
from methods.engine.running_statistics import RunningStatistics
from methods.engine.saves import Saves
from methods.engine.throughput import Throughput

LIMIT = 0.03  # of a step, the engine's own
SHARES = ("forward", "backward", "optimiser", "data", "photometrics", "collectives")  # the rest is the engine's
LEFT_OUT = "left out"
FOREIGN = {*SHARES, LEFT_OUT}  # no part of the engine
UNCOUNTED = 2  # turns at the beginning
STALL_SECONDS = 600  # of a heart that beats as in a run
# What the engine calls, by the part of its share that each is; what none of them takes is "loop".
PARTS = {
    "votes": [(Vote, "cast"), (Vote, "now")],
    "loss watch": [(LossWatch, name) for name in ("note", "verdict", "decide", "averaged")],
    "collapse watch": [(CollapseWatch, "note")],
    "learning rate": [(loop, "learning_rate")],
    "progress": [(Reporter, "progress")],
    "throughput": [(Throughput, "count"), (Throughput, "seconds")],
    "metrics": [(Reporter, "log")],
    "ledger": [(Ledger, "write")],
    "heartbeat": [(Heart, "mark"), (Heart, "point")],
    "pace": [(Pace, name) for name in ("begin", "end", "leave_out")],
    "running statistics": [(RunningStatistics, name) for name in ("__init__", "after_pass", "settle")],
    "seeds": [(loop, "_seed"), (loop.dropout, "begin_step"), (loop.dropout, "begin_pass")],
}


class Timers:
    """Of each stage the (wall, CPU) seconds in which it was the innermost one; of this thread alone."""

    def __init__(self):
        self.seconds, self.halves = {}, 0  # the latter: entries into the engine's parts, and into any from them
        self._thread, self._stack = threading.get_ident(), ["loop"]
        self._last = self._now()

    def of(self, stage, call):
        """`call`, whose time counts as that of `stage`."""

        @functools.wraps(call)
        def timed(*given, **named):
            if threading.get_ident() != self._thread:
                return call(*given, **named)
            self.enter(stage)
            try:
                return call(*given, **named)
            finally:
                self.leave()

        return timed

    def enter(self, stage):
        self.book()
        self.halves += (stage not in FOREIGN) + (self._stack[-1] not in FOREIGN)
        self._stack.append(stage)

    def leave(self):
        self.book()
        self._stack.pop()

    def turn_to(self, stage):
        """From here on the innermost stage is this one."""
        self.book()
        self._stack[-1] = stage

    def book(self):
        """What has passed since the last time is the innermost stage's."""
        now, stage = self._now(), self._stack[-1]
        wall, cpu = self.seconds.get(stage, (0.0, 0.0))
        self.seconds[stage] = wall + now[0] - self._last[0], cpu + now[1] - self._last[1]
        self._last = now

    def each(self, stage, stream):
        """`stream`, what it takes to give its next counted as that of `stage`."""
        try:
            while (given := self.of(stage, next)(stream, None)) is not None:
                yield given
        finally:
            stream.close()

    @staticmethod
    def _now():
        return time.perf_counter(), time.thread_time()


class Collective:
    """What an asynchronous collective returned, whose `wait` is waiting."""

    def __init__(self, work, timers):
        self._work, self.wait = work, timers.of("collectives", work.wait)

    def __getattr__(self, name):
        return getattr(self._work, name)


class OnClock:
    """`Clock.__call__`'s block, its entry and its exit counted as "clock"."""

    def __init__(self, block, timers):
        self._block, self._timers = block, timers

    def __enter__(self):
        self._timers.of("clock", self._block.__enter__)()

    def __exit__(self, *raised):
        return self._timers.of("clock", self._block.__exit__)(*raised)


def put_on(timers, trainer):
    """Timers around all that is told apart. The process is a measurement's own: nothing is put back."""
    for part, calls in PARTS.items():
        for owner, name in calls:
            setattr(owner, name, timers.of(part, getattr(owner, name)))
    booked = Clock.__call__
    Clock.__call__ = lambda self, what: OnClock(booked(self, what), timers)
    for owner in (Evaluations, Saves):
        for name, call in inspect.getmembers(owner, inspect.isfunction):
            if name in ("run", "save", "last", "stop"):
                setattr(owner, name, timers.of(LEFT_OUT, call))
    for name in COLLECTIVES:
        if hasattr(torch.distributed, name):
            setattr(torch.distributed, name, _collective(timers, getattr(torch.distributed, name)))
    batches, backward = loading.batches, loop.backward
    loading.batches = lambda *given, **named: timers.each("data", batches(*given, **named))
    loop.backward = timers.of("backward", lambda loss: backward(_waits_behind(loss, timers)))

    trainer.loss = timers.of("forward", trainer.loss)
    if trainer.photometrics:
        trainer.photometrics = timers.of("photometrics", trainer.photometrics)
    for name in ("before_step", "after_backward", "after_step"):
        setattr(trainer, name, timers.of("optimiser", getattr(trainer, name)))
    for optimizer in trainer.optimizers:
        for name in ("step", "zero_grad"):
            setattr(optimizer, name, timers.of("optimiser", getattr(optimizer, name)))
    trainer.begin_epoch = timers.of(LEFT_OUT, trainer.begin_epoch)


def _collective(timers, call):
    waiting = timers.of("collectives", call)

    @functools.wraps(call)
    def timed(*given, **named):
        made = waiting(*given, **named)
        return Collective(made, timers) if named.get("async_op") else made

    return timed


def _waits_behind(loss, timers):
    """`loss`, of whose backward pass what comes behind this rank's own part is a collective's."""

    def begun(_):
        # The first callback, when the graph is through; DistributedDataParallel waits in one that it queues later.
        torch.autograd.Variable._execution_engine.queue_callback(lambda: timers.turn_to("collectives"))

    if torch.distributed.is_initialized():
        loss.register_hook(begun)
    return loss


class Enough(Exception):
    """All turns have been."""


class Turns:
    """Every `length` steps: what each stage took since. A step begins where the next batch is asked for."""

    def __init__(self, trainer, timers, length, turns):
        self._steps, self._timers, self._length, self._turns = trainer.steps, timers, length, turns
        self._done, self._before = 0, None
        self.rows = []
        trainer.steps = self.steps

    def steps(self, epoch, first):
        stream = self._steps(epoch, first)
        while True:
            if self._done % self._length == 0:
                self._turn()
            self._timers.enter("batches in turn")
            batches = next(stream, None)
            self._timers.leave()
            if batches is None:
                return
            self._done += 1
            yield batches

    def _turn(self):
        self._timers.book()
        now = dict(self._timers.seconds) | {"all threads": (0.0, time.process_time())}
        if self._before is not None:
            pairs = {stage: zip(self._before.get(stage, (0.0, 0.0)), both, strict=True) for stage, both in now.items()}
            self.rows.append({stage: [(b - a) / self._length for a, b in pair] for stage, pair in pairs.items()})
        self._before = now
        if len(self.rows) == self._turns + UNCOUNTED:
            raise Enough


def rank(number, size, spec, run, options, folder):
    """One rank's whole life; rank 0 leaves its turns in `folder`."""
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(size), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    world = dist.init((Path(folder) / "rendezvous").as_uri())
    job, trainer = started(spec, run, world)
    job.heart.start(STALL_SECONDS)
    timers = Timers()
    put_on(timers, trainer)
    measured = Turns(trainer, timers, options.length, options.turns)
    with contextlib.suppress(Enough):
        loop.train(job, trainer, lambda *_: None)
    job.heart.stop()
    if world.is_main:
        cost = _cost(timers) * timers.halves / 2 / (len(measured.rows) * options.length)
        (Path(folder) / "turns.json").write_text(json.dumps({"turns": measured.rows[UNCOUNTED:], "timers": cost}))
    world.barrier()
    dist.shutdown()


def _cost(timers):
    """CPU seconds that one timed call takes more than the call."""
    count, nothing = 2000, timers.of("nothing", lambda: None)
    began = time.thread_time()
    for _ in range(count):
        nothing()
    return (time.thread_time() - began) / count


def measure(method, size, batch, options):
    """Every turn's seconds of a step by stage, on rank 0 of `size` ranks."""
    with tempfile.TemporaryDirectory() as folder:
        spec, run = created([f"method={method}", "recipe=demo", f"method.global_batch={batch * size}"], folder)
        given = size, spec, run, options, folder
        mp.start_processes(_quiet, given, nprocs=size, start_method="fork")  # torch is imported and has no threads yet
        return json.loads((Path(folder) / "turns.json").read_text())


def _quiet(*given):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        rank(*given)


def batch_of(method, options):
    """Images a rank, from the recipe's on, so that a step takes --milliseconds or more; the most that is tried is 16
    times that."""
    batch = registry.method(method).recipe("demo").method.global_batch
    if not options.milliseconds:
        return batch
    short = argparse.Namespace(length=2, turns=3)
    for _ in range(5):
        turns = measure(method, 1, batch, short)["turns"]
        if statistics.median(total(turn, 1) for turn in turns) * 1000 >= options.milliseconds:
            break
        batch *= 2
    return batch


def total(turn, column):
    """Seconds of a step, of what is counted. column: 0 wall, 1 CPU."""
    return sum(both[column] for stage, both in turn.items() if stage not in (LEFT_OUT, "all threads"))


def shares(turn, column, ranks, timers):
    """{stage: share of the step}, the engine's among them. timers: seconds that they take of it."""
    whole = total(turn, column)
    found = {stage: turn.get(stage, (0.0, 0.0))[column] / whole for stage in SHARES}
    # Other threads do what is due every so many seconds, however long a step takes beside others' work.
    beside = others(turn) / total(turn, 0) if column and ranks == 1 else 0.0
    return found | {"engine": 1 - sum(found.values()) + beside - timers / whole}


def others(turn):
    """CPU seconds of a step that other threads of the process took."""
    return max(0.0, turn["all threads"][1] - total(turn, 1) - turn.get(LEFT_OUT, (0.0, 0.0))[1])


def parts(turns):
    """{part of the engine: (wall, CPU) microseconds of a step}, means over the turns, the longest first."""
    names = {stage for turn in turns for stage in turn} - {*SHARES, LEFT_OUT, "all threads"}
    each = {name: [turn.get(name, (0.0, 0.0)) for turn in turns] for name in names}
    each["other threads"] = [(0.0, others(turn)) for turn in turns]
    found = {name: [1e6 * statistics.mean(column) for column in zip(*of, strict=True)] for name, of in each.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1][0]))


def spread(values):
    return dict(zip(("low", "median", "high"), statistics.quantiles(values, n=4, method="inclusive"), strict=True))


def figures(method, ranks, batch, options):
    seen = measure(method, ranks, batch, options)
    turns = seen["turns"]
    found = {"method": method, "ranks": ranks, "images a rank": batch, "load": os.getloadavg()[0]}
    for column, clock in enumerate(("wall", "cpu")):
        of_turns = [shares(turn, column, ranks, seen["timers"]) for turn in turns]
        found[clock] = {stage: spread([each[stage] for each in of_turns]) for stage in (*SHARES, "engine")}
        found[clock]["step_ms"] = spread([1000 * total(turn, column) for turn in turns])
    return found | {"parts_us": parts(turns), "timers_us": 1e6 * seen["timers"]}


def row(found):
    wall, cpu = found["wall"], found["cpu"]["engine"]
    each = [f"{wall[stage]['median']:.1%}" for stage in SHARES]
    engines = [f"{at['median']:.1%} ({at['low']:.1%} to {at['high']:.1%})" for at in (wall["engine"], cpu)]
    step = f"{wall['step_ms']['median']:.0f} ms"
    cells = [f"`{found['method']}`", str(found["ranks"]), str(found["images a rank"]), step, *each, *engines]
    return f"| {' | '.join(cells)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", help="all that are registered where none is named")
    parser.add_argument("--ranks", default="1,2", help="worlds, one after the other")
    parser.add_argument("--turns", type=int, default=12, help=f"counted; the first {UNCOUNTED} are not")
    parser.add_argument("--length", type=int, default=20, help="steps a turn")
    parser.add_argument(
        "--milliseconds", type=float, default=50, help="of CPU, that a step is to take; 0: the recipe's batch"
    )
    parser.add_argument("--parts", action="store_true", help="what the engine's share consists of")
    parser.add_argument("--json", type=Path, help="a file for all figures")
    options = parser.parse_args()
    print(f"medians of {options.turns} turns of {options.length} steps (quartiles); limit of the engine {LIMIT:.0%}\n")
    print(f"| method | ranks | images a rank | step | {' | '.join(SHARES)} | engine, wall | engine, CPU |")
    print("|---|---|---|---|" + "---|" * (len(SHARES) + 2), flush=True)
    rows = []
    for method in options.methods or registry.names():
        batch = batch_of(method, options)
        for ranks in map(int, options.ranks.split(",")):
            rows.append(figures(method, ranks, batch, options))
            print(row(rows[-1]), flush=True)
            if options.parts:
                listed = ", ".join(
                    f"{part} {wall:.0f} ({cpu:.0f})" for part, (wall, cpu) in rows[-1]["parts_us"].items()
                )
                print(f"    us a step, wall (CPU): {listed}; timers {rows[-1]['timers_us']:.0f}", flush=True)
        if options.json:
            options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
