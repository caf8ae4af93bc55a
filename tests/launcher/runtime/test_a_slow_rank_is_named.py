"""What counts as a rank's own part of a step, and that a slow one is named, by real ranks that wait for one another."""

import os
import threading
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from launcher.run import slow_ranks
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.runtime import pace
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.pace import HostMarks, Pace, Stopwatch
from methods.parts.batchnorm import synchronise

RANKS, SLOW = 4, 2
# The others wait in batch statistics; and where gradients are averaged, behind the last collective that Python calls.
PLACES = ("data", "backward")
# What each rank sleeps a step, and what a slow one sleeps beside. A busy machine adds to both, to one rank more than to
# another: here slow is what takes twice as long. That 20 % are enough is in tests/launcher/run/test_slow_ranks.py.
STEP_S, SLOW_S = 0.02, 0.1
RULES = {slow_ranks: {"SLOW": 2.0, "WELL": 1.8}, pace: {"WARM_UP": 1, "WINDOW": 4}}
NAMED, OVER = 1 + 3 * 4, 3 * 4  # steps


class Steps:
    """Of a network whose batch statistics and gradients are over ranks, and whose loss has a sum over them."""

    def __init__(self, world, folder: Path):
        self.world, self.run = world, RunDir(folder)
        network = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        synchronise(network, world, world.size)
        self.network = DistributedDataParallel(network, find_unused_parameters=True, broadcast_buffers=False)
        self.pace = Pace(self.run, world, Ledger(folder, 1, f"rank{world.rank}"))

    def take(self, count: int, place: str, slow: tuple[int, ...]) -> None:
        """`place`: where the ranks `slow` lose their time."""

        def lose(here: str) -> None:
            if here == place and self.world.rank in slow:
                time.sleep(SLOW_S)

        late = self.network.module[0].weight.register_hook(lambda _: lose("backward"))
        for step in range(count):
            self.pace.begin()
            time.sleep(STEP_S)
            lose("data")
            out = self.network(torch.randn(8, 4))
            total = out.mean().detach()
            dist.all_reduce(total)
            pace.backward((out - total).square().mean())
            self.pace.end(step)
        late.remove()
        if self.pace._told:  # of the last steps: in a run a later one hears it
            self.pace._told[-1].wait()
            self.pace._hear()


def judged(world, folder: str) -> dict[str, list[tuple[str, int, str]]]:
    """{place: the events, with the rank and its node}; in the last place it is over after a while."""
    for module, values in RULES.items():
        vars(module).update(values)
    os.environ["SLURMD_NODENAME"] = f"n{world.rank}"
    found = {}
    for place in ("everywhere", *PLACES):
        path = Path(folder) / place
        (path / "events").mkdir(parents=True, exist_ok=True)
        Heart(RunDir(path), rank=world.rank, size=world.size).start(0).stop()  # one beat
        world.barrier()
        steps = Steps(world, path)
        if place == "everywhere":
            steps.take(NAMED, "data", tuple(range(world.size)))
        else:
            steps.take(NAMED, place, (SLOW,))
        if place == PLACES[-1]:
            steps.take(OVER, place, ())
        steps.pace.close()
        events = RunDir(path).history().all("slow_rank", "slow_rank_over")
        found[place] = [(event["event"], event["rank"], event["node"]) for event in events]
    return found


def test_a_rank_is_named_where_it_is_slow_until_it_is_well_and_none_where_all_are(ranks, tmp_path):
    found = ranks(RANKS, judged, str(tmp_path))[0]
    named, over = ("slow_rank", SLOW, f"n{SLOW}"), ("slow_rank_over", SLOW, f"n{SLOW}")
    assert found.pop("everywhere") == []
    assert found.pop(PLACES[-1]) == [named, over]
    assert found == {place: [named] for place in PLACES[:-1]}


class Ticks:
    """Marks of a clock that a test moves on. Those after `known_to` are not known yet, as on a GPU."""

    def __init__(self):
        self.time, self.known_to, self.freed = 0.0, float("inf"), []

    def now(self):
        return self.time

    def known(self, marks):
        return max(marks) <= self.known_to

    def seconds(self, begin, end):
        return end - begin

    def free(self, marks):
        self.freed += marks


@pytest.fixture
def ticks():
    return Ticks()


def passing(ticks: Ticks, seconds: float):
    """A collective that takes so long."""

    def collective():
        ticks.time += seconds
        return seconds

    return collective


def test_collectives_of_the_steps_own_thread_are_left_out_and_no_others(ticks):
    watch = Stopwatch(ticks)
    collective = watch.waits(passing(ticks, 10.0))
    assert collective() == 10.0  # before the first step
    watch.begin()
    ticks.time += 1.0
    collective()
    ticks.time += 2.0
    beside = threading.Thread(target=collective)  # of a checkpoint, say, while this one works on
    beside.start()
    beside.join()
    watch.end()
    assert list(watch.read()) == [1.0 + 2.0 + 10.0]


def test_a_step_is_read_once_its_marks_are_known_and_nobody_waits_for_them(ticks):
    watch, ticks.known_to = Stopwatch(ticks), 2.0
    for seconds in (1.0, 1.0, 5.0):
        watch.begin()
        ticks.time += seconds
        watch.end()
    assert list(watch.read()) == [1.0, 1.0] and list(watch.read()) == []
    ticks.known_to = 7.0
    assert list(watch.read()) == [5.0]
    assert ticks.freed == [0.0, 1.0, 1.0, 2.0, 2.0, 7.0]


class Event:
    """As one of CUDA's, which is over once the GPU has come to it."""

    made, clock, come_to = 0, 0, 0

    def __init__(self, *, enable_timing):
        assert enable_timing
        Event.made += 1

    def record(self):
        Event.clock += 1
        self.at = Event.clock

    def query(self):
        return self.at <= Event.come_to

    def elapsed_time(self, end):
        assert self.query() and end.query()  # torch raises otherwise
        return 1000.0 * (end.at - self.at)


def test_on_a_gpu_one_step_in_some_is_measured_by_a_few_events_that_are_used_again(monkeypatch):
    monkeypatch.setattr(torch.cuda, "Event", Event)
    measuring = Pace(RunDir("nowhere"), World(1, 2, torch.device("cuda", 0)), None)
    read = []
    monkeypatch.setattr(measuring, "_hear", lambda: read.append(len(measuring._own)))
    for step in range(1, 1 + 3 * pace.EVERY):
        measuring.begin()
        measuring.end(step)
        Event.come_to = Event.clock - 1  # the GPU is behind: the end of a step is known in the next that is measured
    measuring.close()
    assert Event.made == 4 and Event.clock == 3 * 2
    assert read == [0] * (pace.EVERY + 1) + [1] * pace.EVERY + [2] * (pace.EVERY - 1)


def test_what_is_left_out_is_in_no_step(ticks):
    watch = Stopwatch(ticks)
    watch.begin()
    ticks.time += 9.0
    watch.leave_out()
    watch.end()
    assert list(watch.read()) == [] and ticks.freed == [0.0]


def test_a_failed_collective_ends_the_step_as_ever():
    watch = Stopwatch(HostMarks())

    def broken():
        raise RuntimeError("Connection closed by peer")

    watch.begin()
    with pytest.raises(RuntimeError, match="closed by peer"):
        watch.waits(broken)()
    watch.end()
    assert len(list(watch.read())) == 1


def test_gradients_are_those_of_a_plain_backward_pass(ticks):
    watch, weight = Stopwatch(ticks), torch.ones(3, requires_grad=True)
    for begun in (False, True):
        weight.grad = None
        if begun:
            watch.begin()
        watch.backward((weight * 2).sum())
        assert weight.grad.tolist() == [2.0] * 3
    watch.end()
    assert list(watch.read()) == [0.0]
