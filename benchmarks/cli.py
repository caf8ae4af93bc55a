"""python benchmarks/cli.py        about half a minute.

Wall time of the commands that a person waits for, beside `python -c 'import hydra'`, which they cannot be much faster
than. They take turns; a ratio is the median over turns, each beside the import of its own turn, since other work comes
and goes. Limits: 1 s, and twice the import. Bytecode is cached, as after the first use.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SSLRUN = str(Path(sys.executable).with_name("sslrun"))
COMMANDS = {
    "import hydra": [sys.executable, "-c", "import hydra"],
    "sslrun --help": [SSLRUN, "--help"],
    "sslrun status": [SSLRUN, "status"],
    "sslrun plan ...": [SSLRUN, "plan", "method=deepercluster", "nodes=8"],
    "sslrun plan ... --json": [SSLRUN, "plan", "method=deepercluster", "nodes=8", "--json"],
}
LIMIT_SECONDS, LIMIT_RATIO = 1.0, 2.0


def seconds(command, environment, folder):
    start = time.perf_counter()
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:  # which has no runs
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        times = {name: [] for name in COMMANDS}
        for turn in range(turns + 1):
            for name, command in COMMANDS.items():
                taken = seconds(command, environment, folder)
                if turn:  # the first one fills the cache
                    times[name].append(taken)
    load = os.getloadavg()[0]
    print(f"{turns} turns, load average {load:.1f}; limits {LIMIT_SECONDS:g} s, {LIMIT_RATIO:g} times import hydra")
    print(f"{'':24} median  lowest  highest  / import hydra (lowest to highest)")
    for name, taken in times.items():
        middle = statistics.median(taken)
        ratios = [mine / base for mine, base in zip(taken, times["import hydra"], strict=True)]
        ratio = statistics.median(ratios)
        within = middle <= LIMIT_SECONDS and ratio <= LIMIT_RATIO
        remark = "" if within else "   over the limit"
        beside = f"{ratio:5.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:24} {middle:5.2f} s {min(taken):5.2f} s {max(taken):6.2f} s  {beside}{remark}")


if __name__ == "__main__":
    main()
