"""python benchmarks/cli.py        about a minute.

Wall time of the commands that a person waits for, beside `python -c 'import hydra'`, which they cannot be much faster
than: in turns, medians. Limits: 1 s, and 2.5 times the import. Bytecode is cached, as after the first use.
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
    "sslrun plan ... --json": [SSLRUN, "plan", "method=deepercluster", "nodes=8", "--json"],
}
LIMIT_SECONDS, LIMIT_RATIO = 1.0, 2.5


def seconds(command, environment):
    start = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as cache:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        times = {name: [] for name in COMMANDS}
        for turn in range(turns + 1):
            for name, command in COMMANDS.items():
                taken = seconds(command, environment)
                if turn:  # the first one fills the cache
                    times[name].append(taken)
    base = statistics.median(times["import hydra"])
    print(f"{'':24} median  fastest  / import hydra   (limits {LIMIT_SECONDS} s, {LIMIT_RATIO})")
    for name, taken in times.items():
        middle = statistics.median(taken)
        within = middle <= LIMIT_SECONDS and middle <= LIMIT_RATIO * base
        remark = "" if within else "   over the limit"
        print(f"{name:24} {middle:5.2f} s  {min(taken):5.2f} s  {middle / base:6.2f}{remark}")


if __name__ == "__main__":
    main()
