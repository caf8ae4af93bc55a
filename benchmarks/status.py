"""python benchmarks/status.py --runs 10000        two minutes, and 1 GB below --folder while it works.

What `sslrun status` takes in a folder of many runs that have ended: copies of a real tiny run's ledger, each under a
seed and an identity of its own. Cold is without the index, warm with it; both with the start of Python. The files are
in the page cache, on the disk of --folder: a shared file system adds its round trips. Limit: 2 s, warm, 10,000 runs.
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from launcher.report.index import place
from launcher.run.folder import RunDir

SSLRUN = str(Path(sys.executable).with_name("sslrun"))
KEPT = ("plan.json", "progress.json", "manifest.json", "lock")
LIMIT_SECONDS = 2.0


def populate(folder: Path, count: int) -> list[str]:
    """`count` runs, as a finished run leaves them but for its weights and logs. Returns their ids."""
    with tempfile.TemporaryDirectory() as small:
        command = [SSLRUN, "method=rotnet", "recipe=tiny", f"runs={small}", "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        model = RunDir(json.loads(done.stdout.splitlines()[-1])["path"])
        files = [f for f in model.path.rglob("*") if f.name in KEPT or f.parent.name == "events"]
        contents = {f.relative_to(model.path): f.read_bytes() for f in files}
        spec = model.spec()
    ids = []
    for seed in range(count):
        mine = dataclasses.replace(spec, seed=seed)
        ids.append(mine.run_id)
        for name, content in contents.items():
            path = folder / mine.run_id / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder / mine.run_id / "spec.json").write_text(json.dumps(mine.to_json(), indent=1))
    return ids


def seconds(command: list[str]) -> tuple[float, float]:
    """(wall time, CPU time) of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make them; the system's for temporary files by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name) / "runs"
        ids = populate(folder, options.runs)
        # One run whose beginning is its own, as people type it.
        beginning = next(i[:n] for i in ids for n in range(8, len(i)) if sum(j.startswith(i[:n]) for j in ids) == 1)
        status = [SSLRUN, "status", f"runs={folder}"]
        measured = {
            "status, cold": status,
            "status, warm": status,
            "status --json": [*status, "--json"],
            "status --where method.lr": [*status, "--where", "method.lr>=1", "--sort=-evals.knn.trained"],
            "status --csv": [*status, "--csv"],
            "show BEGINNING": [SSLRUN, "show", beginning, f"runs={folder}"],
            "--help": [SSLRUN, "--help"],
        }
        print(f"{options.runs:,} runs, load {os.getloadavg()[0]:.1f}\n{'':26} median  fastest      CPU")
        for what, command in measured.items():
            taken = []
            for _ in range(1 if what.endswith("cold") else options.turns):
                taken.append(seconds(command))
            wall, work = (statistics.median(column) for column in zip(*taken, strict=True))
            over = "   over the limit" if what == "status, warm" and wall > LIMIT_SECONDS else ""
            print(f"{what:26} {wall:5.2f} s  {min(taken)[0]:5.2f} s  {work:5.2f} s{over}")
        print(f"the index takes {place(folder).stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
