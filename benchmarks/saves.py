"""python benchmarks/saves.py [--gb 2] [--turns 8] [--device cuda] [--folder DIR] [--json FILE]        some minutes.

By how much a save delays the training: `Checkpointer.begin`, its thread and `settle` beside a plain torch.save with
fsync of the same state. The training is matmuls on one thread, or on a GPU, whose step time is known from the steps
just before and after each save; what the steps meanwhile take longer than that, and what they wait for, is the delay.
A third side is the save of a run that was told to stop, which nothing goes on beside: it must fit into the grace. All
save in turns in one process, to one folder, in several files; each turn lasts until the save is on the disk, and read
back where it is. All state changes between two saves, so that nothing is linked. Ratios are of the sides of one turn.

For a core the training waits only where others use the machine, too, or where it has fewer cores than threads: that
part of the delay, which Linux tells, is shown beside it, and the ratio is given with it and without. A save that is not
in haste lets all others go first: on a machine that is busy otherwise it takes as long as they please.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import torch

from launcher.run.folder import RunDir
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.runtime.dist import World
from launcher.runtime.stateful import ValueState

LIMITS = {"Checkpointer": 0.15, "in haste": 1.0}  # of the plain save's delay
QUIET_STEPS = 30  # before each save, and after it
TENSORS = 16  # a file


class Training:
    """Steps of `milliseconds` each (about): matmuls, and a change of every tensor's first number."""

    def __init__(self, state, device, milliseconds):
        self._state, self._device = state, device
        size = 512 if device.type == "cpu" else 4096
        self._a, self._b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
        self._matmuls = 1
        self.step()
        rows = []
        self.time(rows)
        own = (torch.stack(rows) * torch.tensor([1, -1])).sum(1).median().item()
        self._matmuls = max(1, round(milliseconds / 1000 / own))

    def step(self):
        for _ in range(self._matmuls):
            self._a = torch.nn.functional.normalize(self._a @ self._b)
        for tensors in self._state.values():
            for tensor in tensors.values():
                tensor[0] += 1
        if self._device.type == "cuda":  # as one that looks at its loss
            torch.cuda.synchronize()

    def time(self, rows):
        """Take some steps, and add each one's Clock to `rows`."""
        for _ in range(QUIET_STEPS):
            clock = Clock()
            self.step()
            rows.append(clock.read())


class Clock:
    """Since it was made: seconds by the wall, and those of them in which this thread wanted a core and had none."""

    def __init__(self):
        self._wall, self._waited = time.perf_counter(), self._waits()

    def read(self):
        return torch.tensor([time.perf_counter() - self._wall, self._waits() - self._waited])

    @staticmethod
    def _waits():
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


class Asynchronous:
    """As the engine saves: begin, go on, settle once it is through."""

    name = "Checkpointer"

    def __init__(self, folder, state, device):
        self._run = RunDir(folder / type(self).__name__)
        for name in ("checkpoints", "events"):
            (self._run.path / name).mkdir(parents=True)
        world = World(0, 1, device)
        owners = Owners(world)
        for file, tensors in state.items():
            owners.add(file, ValueState(lambda tensors=tensors: tensors, lambda _: None), shard=file)
        self._checkpoints = Checkpointer(self._run, world, owners, keep=1, generation=1)
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

    def __init__(self, folder, state, device):
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
    """One save, in seconds: [delay, of it for a core, blocked in begin and settle, until it is on the disk]."""
    os.sync()  # what the other side left to be written is not this one's burden
    quiet = []
    training.time(quiet)
    clock, steps = Clock(), 0
    side.begin()
    blocked = clock.read()
    while not side.over():
        training.step()
        steps += 1
    lasted = clock.read()
    side.settle()
    ended = clock.read()
    training.time(quiet)
    wall, waited = torch.stack(quiet).unbind(1)
    # A step's own time is what it takes with a core; whatever it waits for one beyond the usual is part of the delay.
    own, usual = (wall - waited).median(), waited.mean()
    delay = ended[0] - steps * (own + usual)
    return [float(x) for x in (delay, ended[1] - steps * usual, (blocked + ended - lasted)[0], lasted[0])]


def ratios(rows):
    """side -> {which delay: [lowest, median, highest] over the turns of its ratio to the plain save}. In haste it is
    other threads that wait for a core, which nobody counts."""
    found = {}
    for name in LIMITS:
        delays = {"all of it": lambda row: row[0], "with a core": lambda row: row[0] - row[1]}
        for what in delays if name == Asynchronous.name else ("all of it",):
            turns = zip(rows[name], rows[Plain.name], strict=True)
            of = sorted(delays[what](ours) / delays[what](plain) for ours, plain in turns)
            found.setdefault(name, {})[what] = [of[0], statistics.median(of), of[-1]]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="of state")
    parser.add_argument("--files", type=int, default=4)
    parser.add_argument("--turns", type=int, default=8, help="of each side, after one that is not counted")
    parser.add_argument("--milliseconds", type=float, default=50, help="a training step")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="where the state is")
    parser.add_argument("--folder", type=Path, help="on the disk to save to, if not that of temporary files")
    parser.add_argument("--json", type=Path, help="where to write all that was measured")
    options = parser.parse_args()
    torch.set_num_threads(1)
    scalars = int(options.gb * 1e9 / 4 / options.files / TENSORS)
    state = {
        f"part_{file}": {f"tensor_{n}": torch.randn(scalars, device=options.device) for n in range(TENSORS)}
        for file in range(options.files)
    }
    folder, load = Path(tempfile.mkdtemp(dir=options.folder)), os.getloadavg()[0]
    try:
        training = Training(state, options.device, options.milliseconds)
        sides = [kind(folder, state, options.device) for kind in (Asynchronous, InHaste, Plain)]
        for side in sides:
            print(f"first save, {side.name}: {measure(side, training)[0]:.2f} s of delay (buffers are new)", flush=True)
        rows = {side.name: [] for side in sides}
        for _ in range(options.turns):
            for side in sides:
                rows[side.name].append(measure(side, training))
    finally:
        shutil.rmtree(folder)
    loads = [round(load, 1), round(os.getloadavg()[0], 1)]
    print(f"\n{options.gb:g} GB on {options.device} in {options.files} files, {options.turns} saves a side", end="; ")
    print(f"load average {loads[0]} to {loads[1]}; medians (lowest to highest)\n")
    print(f"{'':20} {'delay':>24} {'of it for a core':>18} {'blocked':>10} {'on the disk after':>18}")
    for name, taken in rows.items():
        delays = [row[0] for row in taken]
        delay, waited, blocked, lasted = (statistics.median(column) for column in zip(*taken, strict=True))
        spread = f"{delay:.2f} s ({min(delays):.2f} to {max(delays):.2f})"
        print(f"{name:20} {spread:>24} {waited:16.2f} s {blocked:8.2f} s {lasted:16.2f} s")
    found = ratios(rows)
    for name, each in found.items():
        for what, (lowest, median, highest) in each.items():
            print(f"{name} / plain, {what:12} {median:.3f} ({lowest:.3f} to {highest:.3f})   limit {LIMITS[name]}")
    if options.json:
        given = {"gb": options.gb, "files": options.files, "device": str(options.device), "load": loads}
        columns = "delay_s", "for_a_core_s", "blocked_s", "lasted_s"
        turns = {name: [dict(zip(columns, row, strict=True)) for row in taken] for name, taken in rows.items()}
        options.json.write_text(json.dumps({**given, "turns": turns, "ratios": found, "limits": LIMITS}, indent=1))


if __name__ == "__main__":
    main()
