"""python benchmarks/votes.py [--ranks 4] [--turns 40]        a minute.

What the ranks' vote costs a step: `Vote.cast` between gloo ranks on this machine, with steps of --milliseconds. A step
waits without computing, as for a GPU, so that ranks on few cores do not disturb one another; with --busy it computes.
All ranks take some steps with votes and some without, in turns; each turn begins with a barrier. Compared are
neighbouring turns, by the slowest rank.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import torch
import torch.multiprocessing as mp

from launcher.runtime import dist

LIMIT = 0.01  # of a step
UNCOUNTED = 2  # pairs of turns at the beginning


def take_step(seconds, busy):
    end = time.perf_counter() + seconds
    if not busy:
        time.sleep(seconds)
        return
    a = torch.ones(64, 64)
    while time.perf_counter() < end:
        a = a @ a / 64


def rank(number, options, folder):
    os.environ |= {"RANK": str(number), "WORLD_SIZE": str(options.ranks), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    world = dist.init((Path(folder) / "rendezvous").as_uri())
    vote, rows = dist.Vote(world), []
    for turn in range(options.turns + UNCOUNTED):
        row = []
        for votes in (True, False) if turn % 2 else (False, True):
            world.barrier()
            began, inside = time.perf_counter(), 0.0
            for _ in range(options.length):
                take_step(options.milliseconds / 1000, options.busy)
                if votes:
                    casting = time.perf_counter()
                    assert vote.cast(0) == 0
                    inside += time.perf_counter() - casting
            taken = time.perf_counter() - began
            vote.settle()
            row.append((votes, taken / options.length, inside / options.length))
        rows.append([figures[1:] for figures in sorted(row)])
    gathered = world.gather(rows[UNCOUNTED:])
    if world.is_main:
        report(torch.tensor(gathered), options)
    world.barrier()
    dist.shutdown()


def report(seconds, options):
    """seconds [rank, turn, without or with, (a step, of it inside cast)]"""
    without, with_votes = seconds[:, :, 0, 0].amax(0), seconds[:, :, 1, 0].amax(0)
    inside = 1e6 * seconds[:, :, 1, 1].flatten()
    more = (with_votes / without - 1).tolist()
    low, middle, high = statistics.quantiles(more, n=4)
    kind = "computes" if options.busy else "waits"
    print(f"{options.ranks} ranks, {options.turns} pairs of turns of {options.length} steps; a step {kind}")
    print(f"a step without votes {1000 * without.median():.2f} ms, with {1000 * with_votes.median():.2f} ms")
    print(f"more by {middle:.2%} ({low:.2%} to {high:.2%}, quartiles of neighbouring turns)   (limit {LIMIT:.0%})")
    print(f"inside cast {inside.median():.0f} us a step, 95 % of turns under {inside.quantile(0.95):.0f} us")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--turns", type=int, default=40, help="pairs: some steps with votes, some without")
    parser.add_argument("--length", type=int, default=10, help="steps a turn")
    parser.add_argument("--milliseconds", type=float, default=50, help="a step")
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        mp.start_processes(rank, (options, folder), nprocs=options.ranks, start_method="spawn")


if __name__ == "__main__":
    main()
