"""python benchmarks/cli.py        about half a minute.

The commands that a person waits for, beside `python -c 'import hydra'`, which they cannot be much faster than. They
take turns; a ratio is the median over turns, each beside the import of its own turn, since other work comes and goes,
and that of CPU time hardly depends on it. Limits: 1 s, twice the import. Bytecode is cached, as after the first use.
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
    """(on the clock, of a CPU)."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{command} ended with {process.returncode}")
    return time.perf_counter() - start, used.ru_utime + used.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:  # which has no runs
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = cache
        found = {name: [] for name in COMMANDS}
        for turn in range(turns + 1):
            for name, command in COMMANDS.items():
                taken = seconds(command, environment, folder)
                if turn:  # the first one fills the cache
                    found[name].append(taken)
    load = os.getloadavg()[0]
    print(f"{turns} turns, load average {load:.1f}; limits {LIMIT_SECONDS:g} s, {LIMIT_RATIO:g} times import hydra")
    print(f"{'':24} median, lowest to highest   / import hydra            CPU   / import hydra")
    bases = [list(each) for each in zip(*found["import hydra"], strict=True)]
    for name, taken in found.items():
        clock, cpu = (list(each) for each in zip(*taken, strict=True))
        ratios, of_cpu = (
            [mine / base for mine, base in zip(ours, theirs, strict=True)]
            for ours, theirs in zip((clock, cpu), bases, strict=True)
        )
        middle, ratio = statistics.median(clock), statistics.median(ratios)
        remark = "" if middle <= LIMIT_SECONDS and ratio <= LIMIT_RATIO else "   over the limit"
        spread = f"{middle:5.2f} s, {min(clock):.2f} to {max(clock):.2f}"
        beside = f"{ratio:.2f}, {min(ratios):.2f} to {max(ratios):.2f}"
        used = f"{statistics.median(cpu):5.2f} s   {statistics.median(of_cpu):.2f}"
        print(f"{name:24} {spread:26}  {beside:22} {used}{remark}")


if __name__ == "__main__":
    main()
