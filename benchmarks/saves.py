"""python benchmarks/saves.py [--gb 2] [--turns 8] [--folder DIR]        some minutes.

By how much a save delays the training: `Checkpointer.begin`, its thread and `settle` beside a plain torch.save with
fsync of the same state. The training is matmuls on one thread, whose step time is known from the steps just before and
after each save; what the steps meanwhile take longer than that, and what they wait for, is the delay. A third side is
the save of a run that was told to stop, which nothing goes on beside: it must fit into the grace. All save in turns in
one process, to one folder, in several files; each turn lasts until the save is on the disk. Turns around
which the training had to wait for its core are not counted and done again, as long as --patience lasts; on a machine
that others use, too, one can have it run before them (`nice -n -10`; where there are autogroups, root's
`echo -15 > /proc/self/autogroup` in the shell).
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import torch

from launcher.rundir import RunDir
from launcher.runtime.checkpoint import Checkpointer, Registry
from launcher.runtime.dist import World
from launcher.runtime.stateful import ValueState

LIMIT = 0.15  # of the plain save's delay
QUIET_STEPS = 30  # before each save, and after it
QUIET = 0.05  # of the time of those that the training may have waited for a core
TENSORS = 16  # a file


class Training:
    """Steps of `milliseconds` each (about): matmuls, and a change of every tensor's first number."""

    def __init__(self, state, milliseconds):
        self._state = state
        self._a, self._b = torch.randn(512, 512), torch.randn(512, 512)
        self._matmuls = 1
        self._matmuls = max(1, round(milliseconds / 1000 / statistics.median(self.step() for _ in range(50))))

    def step(self):
        """Seconds that it took."""
        began = time.perf_counter()
        for _ in range(self._matmuls):
            self._a = torch.nn.functional.normalize(self._a @ self._b)
        for tensors in self._state.values():
            for tensor in tensors.values():
                tensor[0] += 1
        return time.perf_counter() - began

    def quiet(self):
        """(seconds of each of some steps, share of the time for which they had no core)."""
        wall, cpu = time.perf_counter(), time.thread_time()
        steps = [self.step() for _ in range(QUIET_STEPS)]
        return steps, 1 - (time.thread_time() - cpu) / (time.perf_counter() - wall)


class Asynchronous:
    """As the engine saves: begin, go on, settle once it is through."""

    name = "Checkpointer"

    def __init__(self, folder, state):
        self._run = RunDir(folder / type(self).__name__)
        for name in ("checkpoints", "events"):
            (self._run.path / name).mkdir(parents=True)
        world = World(0, 1, torch.device("cpu"))
        registry = Registry(world)
        for file, tensors in state.items():
            registry.add(file, ValueState(lambda tensors=tensors: tensors, lambda _: None), shard=file)
        self._checkpoints = Checkpointer(self._run, world, registry, keep=1, generation=1)
        self._number = 0

    def begin(self):
        self._number += 1
        self._checkpoints.begin(self._number, 1_000_000)

    def over(self):
        return not self._checkpoints._under_way.thread.is_alive()

    def settle(self):
        self._checkpoints.settle()


class InHaste(Asynchronous):
    """As the engine saves when it was told to stop."""

    name = "in haste"

    def begin(self):
        self._number += 1
        self._checkpoints.begin(self._number, 1_000_000, haste=True)
        self._checkpoints.settle()
        for path in self._run.checkpoints()[:-1]:  # the next one that is not in haste would do it
            shutil.rmtree(path)

    def over(self):
        return True


class Plain:
    """torch.save of each file, and fsync; beside, and renamed, as everybody should."""

    name = "torch.save + fsync"

    def __init__(self, folder, state):
        self._folder, self._state = folder / "plain", state
        self._folder.mkdir()

    def begin(self):
        for file, tensors in self._state.items():
            beside = self._folder / f"{file}.new"
            with beside.open("wb") as stream:
                torch.save(tensors, stream)
                stream.flush()
                os.fsync(stream.fileno())
            beside.rename(self._folder / f"{file}.pt")

    def over(self):
        return True

    def settle(self):
        pass


def measure(side, training):
    """(delay, blocked in begin and settle, until it is on the disk), in seconds, of one save; whether it was quiet."""
    os.sync()  # what the other side left to be written is not this one's burden
    before, waited_before = training.quiet()
    began = time.perf_counter()
    side.begin()
    blocked, steps = time.perf_counter() - began, 0
    while not side.over():
        training.step()
        steps += 1
    lasted = time.perf_counter() - began
    waiting = time.perf_counter()
    side.settle()
    ended = time.perf_counter()
    after, waited_after = training.quiet()
    delay = ended - began - steps * statistics.median(before + after)
    return (delay, blocked + ended - waiting, lasted), max(waited_before, waited_after) < QUIET


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="of state")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--turns", type=int, default=8, help="of each side, after one that is not counted")
    parser.add_argument("--patience", type=float, default=15, help="minutes in which quiet turns must be found")
    parser.add_argument("--milliseconds", type=float, default=50, help="a training step")
    parser.add_argument("--folder", type=Path, help="on the disk to save to, if not that of temporary files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scalars = int(options.gb * 1e9 / 4 / options.files / TENSORS)
    state = {
        f"part_{file}": {f"tensor_{n}": torch.randn(scalars) for n in range(TENSORS)} for file in range(options.files)
    }
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        training = Training(state, options.milliseconds)
        sides = [Asynchronous(folder, state), InHaste(folder, state), Plain(folder, state)]
        for side in sides:
            row, _ = measure(side, training)
            print(f"first save of {side.name}: {row[0]:.2f} s of delay (its buffers are new)", flush=True)
        rows, noisy, began = {side.name: [] for side in sides}, 0, time.monotonic()
        while min(map(len, rows.values())) < options.turns and time.monotonic() - began < 60 * options.patience:
            for side in sides:
                row, quiet = measure(side, training)
                noisy += not quiet
                rows[side.name] += [row] if quiet else []
    finally:
        shutil.rmtree(folder)
    if not all(rows.values()):
        raise SystemExit("no quiet turn was found; try again when nothing else runs")
    print(f"\n{options.gb:g} GB in {options.files} files, medians (lowest to highest); {noisy} noisy turns left out\n")
    print(f"{'':20} {'saves':>5} {'delay':>22} {'blocked':>10} {'on the disk after':>18}")
    for name, taken in rows.items():
        delays, blocked, lasted = ([row[i] for row in taken] for i in range(3))
        spread = f"{statistics.median(delays):.2f} s ({min(delays):.2f} to {max(delays):.2f})"
        print(f"{name:20} {len(taken):5} {spread:>22}", end="")
        print(f" {statistics.median(blocked):8.2f} s {statistics.median(lasted):16.2f} s")
    ours, _, plain = (statistics.median(row[0] for row in taken) for taken in rows.values())
    print(f"\nratio of the delays {ours / plain:.3f}   (limit {LIMIT})")


if __name__ == "__main__":
    main()
