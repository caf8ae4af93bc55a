"""python benchmarks/scale.py        ten minutes, and 2 GB below --folder while it works; a minute with --runs 3000.

What a person waits for on a login node in a folder of many runs, with the start of Python: the first time, when nothing
is remembered of them, and again. The runs are copies of what a real tiny run leaves but for its weights, each under an
identity of its own; a third of them are the points of a multirun, and of a paper's table, with three starts each. A
tenth as many are measured, too: the last column is how many times the CPU time of that all took, and 10 or less is
linear. The files are in the page cache, on the disk of --folder; a shared file system adds its round trips. CPU is what
the command itself takes; beside other work the wall time says little. Limit: 3 s again, 30,000 runs.
"""

import argparse
import dataclasses
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from launcher.compose.points import expand
from launcher.run.folder import RunDir
from launcher.sweep import asked, record

SSLRUN = str(Path(sys.executable).with_name("sslrun"))
LIMIT_SECONDS = 3.0
SEEDS = 10  # of each point
FIRST = ("status", "sweep list", "report SWEEP", "--multirun")  # what reads many runs the first time
METRICS = 100_000  # lines of the long run: a row every ten steps of a million
TABLE = """
paper: Nobody
table: Table 1
claim: None.
numbers: top-1 (%)
method: rotnet
axis: learning rate
sets: method.lr={value}
scales:
  paper: {metric: knn.trained, gpu_hours: 1}
  demo: {metric: knn.trained, minutes: 1}
  tiny: {metric: knn.trained, minutes: 1}
points:
"""


class Many:
    """A folder of `count` runs that are done, a third of them those of a sweep, and a cache of its own."""

    def __init__(self, home: Path, count: int):
        self.home, self.folder, self.config_dir = home, home / "runs", home / "config"
        self.cache, self.points = home / "cache", max(1, count // 3 // SEEDS)
        rates = [f"{0.001 * (1 + n):.3f}" for n in range(self.points)]
        file = self.config_dir / "sweeps" / "nobody" / "rates.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(TABLE + "".join(f"  - {{value: {rate}, paper: {50 + n}}}\n" for n, rate in enumerate(rates)))
        self.runs = f"runs={self.folder}"
        self.multirun = ["method=rotnet", "recipe=tiny", f"method.lr={','.join(rates)}", f"seed=range(0,{SEEDS})"]
        self._model()
        wanted = asked.read(["sweep=nobody/rates", "recipe=tiny", f"seed=range(0,{SEEDS})", self.runs], self.config_dir)
        members, _ = asked.members(wanted, self.config_dir)
        found = [RunDir(self.folder / member.point.spec.run_id) for member in members]
        for member, run in zip(members, found, strict=True):
            self._lay(run.path, member.point.spec, starts=3)
        rows = [asked.described(wanted, member) for member in members]
        record.record([], [member.point for member in members], found, rows)
        for seed in range(SEEDS, SEEDS + count - len(found)):
            spec = dataclasses.replace(self._spec, seed=seed)
            self._lay(self.folder / spec.run_id, spec, starts=1)
        self.one = found[0]

    def _model(self) -> None:
        """A run as a finished one leaves it."""
        command = [SSLRUN, "method=rotnet", "recipe=tiny", f"runs={self.home / 'model'}", "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        model = RunDir(json.loads(done.stdout.splitlines()[-1])["path"])
        kept = ("plan.json", "progress.json", "manifest.json", "lock", "metrics.jsonl")
        files = [f for f in model.path.rglob("*") if f.name in kept or f.parent.name == "events"]
        self._contents = {str(f.relative_to(model.path)): f.read_bytes() for f in files}
        self._spec = model.spec()

    def _lay(self, path: Path, spec: object, starts: int) -> None:
        contents = {**self._contents, "spec.json": json.dumps(spec.to_json(), indent=1).encode()}
        for name, content in self._contents.items():
            if name.startswith("events/0001"):
                for start in range(2, 1 + starts):
                    text = content.replace(b'"generation": 1', b'"generation": %d' % start)
                    contents[name.replace("0001", f"{start:04d}")] = text
        for name, content in contents.items():
            file = path / name
            if not file.parent.is_dir():
                file.parent.mkdir(parents=True)
            file.write_bytes(content)

    def seconds(self, words: list[str], *, first: bool = False) -> tuple[float, float]:
        """(wall time, CPU time) of a command. first: with nothing remembered."""
        if first:
            shutil.rmtree(self.cache, ignore_errors=True)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        environment = {**os.environ, "XDG_CACHE_HOME": str(self.cache)}
        subprocess.run([SSLRUN, *words], check=True, capture_output=True, env=environment)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def commands(self) -> dict[str, list[str]]:
        """What is measured. Of `show` the beginning of a name, as people type it."""
        names = sorted(path.name for path in self.folder.iterdir())
        name = self.one.path.name
        beginning = next(name[:n] for n in range(8, 99) if sum(each.startswith(name[:n]) for each in names) == 1)
        of_sweeps = [self.runs, "--config-dir", str(self.config_dir)]
        return {
            "status": ["status", self.runs],
            "status --json": ["status", self.runs, "--json"],
            "status --where method.lr>=1": [
                "status",
                self.runs,
                "--where",
                "method.lr>=1",
                "--sort=-evals.knn.trained",
            ],
            "show BEGINNING": ["show", beginning, self.runs],
            "sweep list": ["sweep", "list", *of_sweeps],
            "report SWEEP": ["report", "sweep=nobody/rates", "recipe=tiny", *of_sweeps],
            "report RUN, 100,000 rows": ["report", str(self.one.path)],
            "--multirun": ["--multirun", *self.multirun, self.runs],
        }

    def made(self, number: int) -> Iterator[tuple[str, float]]:
        """(what, seconds) of making so many new runs of a multirun, but for the queue."""
        words = ["method=rotnet", "recipe=tiny", f"seed=range(0,{number})", f"runs={self.home / 'new'}"]
        start = time.perf_counter()
        points = expand(words)
        yield "composing", time.perf_counter() - start
        start = time.perf_counter()
        runs = record.create(points)
        record.record(words, points, runs)
        yield "writing, all synced to the disk", time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make them; the system's for temporary files by default")
    parser.add_argument("--only", help="commands that begin so")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        few, many = (Many(Path(name) / str(count), count) for count in (options.runs // 10, options.runs))
        lines = "".join(f'{{"step": {10 * n}, "time": 0.0, "loss": 1.0, "lr": 0.1}}\n' for n in range(METRICS))
        for each in (few, many):
            (each.one.path / "metrics.jsonl").write_text(lines)
        points = SEEDS * many.points
        print(f"{options.runs:,} runs, {points:,} of them of a sweep; load {os.getloadavg()[0]:.1f}, medians (range)")
        print(f"{'':36}{'wall':>26}{'CPU':>10}{'times as long':>16}")
        small = few.commands()
        for what, words in many.commands().items():
            if not what.startswith(options.only or ""):
                continue
            for first in (True, False) if what in FIRST else (False,):
                turns = 1 if first else options.turns
                taken = [
                    (few.seconds(small[what], first=first), many.seconds(words, first=first)) for _ in range(turns)
                ]
                walls, work = [wall for _, (wall, _) in taken], statistics.median(cpu for _, (_, cpu) in taken)
                ratio = work / statistics.median(cpu for (_, cpu), _ in taken)
                wall, label = statistics.median(walls), f"{what}, {'first' if first else 'again'}"
                over = "   over the limit" if wall > LIMIT_SECONDS and not first else ""
                spread = f"{wall:.2f} s ({min(walls):.2f} to {max(walls):.2f})"
                print(f"{label:36}{spread:>26}{work:8.2f} s{ratio:14.1f}{over}", flush=True)
        if not options.only:
            for of in (few, many):
                for what, took in of.made(points // 10 if of is many else points // 100):
                    print(f"{what}: {took:.2f} s for {points // (10 if of is many else 100):,} new runs of a multirun")


if __name__ == "__main__":
    main()
