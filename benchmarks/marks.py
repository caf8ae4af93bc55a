"""python benchmarks/marks.py [--turns 40]        seconds.

What a sign of progress costs the main thread: `Heart.mark`, beside a read of the clock, which it begins with. The heart
beats and watches meanwhile, as in a rank. Both are called many times, in turns; compared are neighbouring turns.

A step marks a dozen times, the shortest steps take 10 ms, and 1 % of these is 100 microseconds: 8 a mark.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from launcher.run.folder import RunDir
from launcher.runtime.health import Heart

LIMIT = 8e-6  # seconds
COUNT = 10_000  # calls a turn


def seconds(call) -> float:
    """Of one call."""
    began = time.perf_counter()
    for _ in range(COUNT):
        call()
    return (time.perf_counter() - began) / COUNT


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "events").mkdir()
        heart = Heart(RunDir(Path(folder))).start(60.0)
        turns = [(seconds(heart.mark), seconds(time.monotonic)) for _ in range(options.turns)]
        heart.stop()
    marks, reads = zip(*turns, strict=True)
    low, middle, high = statistics.quantiles([mark / read for mark, read in turns], n=4)
    print(f"a mark {1e9 * statistics.median(marks):.0f} ns   (limit {1e9 * LIMIT:.0f})")
    print(f"a read of the clock {1e9 * statistics.median(reads):.0f} ns")
    print(f"a mark is {middle:.1f} reads of the clock ({low:.1f} to {high:.1f}, quartiles of neighbouring turns)")


if __name__ == "__main__":
    main()
