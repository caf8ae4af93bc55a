"""python benchmarks/kmeans_cost.py [--threads 2] [--turns 3]     some minutes; --table: the table of docs/kmeans.md.

The cost model of plan/kmeans_cost.py beside measurements of `launcher.kmeans.fit` on this machine: a CPU, or a GPU
where there is one. The rates of the matrix product and of the memory are measured right before and after each
clustering, so that what else the machine does slows down both. Seconds of an iteration are the difference of two calls
that differ in their number of iterations; shown are medians over the turns.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import torch
from kmeans_table import span, table

from launcher.compose import clusters
from launcher.kmeans import fit
from launcher.plan.kmeans_cost import EFFICIENCY, Machine, Problem, iteration

LIMIT = 0.25  # of the measurement
SIZES = {
    "cpu": ((200_000, 1000, 256), (100_000, 5000, 64), (100_000, 500, 1024), (400_000, 4, 256)),
    "cuda": ((1_000_000, 4, 4096), (400_000, 20_000, 4096), (2_000_000, 10_000, 256)),
}
ITERATIONS = 3
RATE_SECONDS = 0.5


def seconds_of(work, device):
    """Of wall time on a GPU; on a CPU what the threads computed, divided by their number: the wall's time where nobody
    else computes, and still comparable where somebody does."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = now(device)
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return now(device) - began


def now(device):
    return time.perf_counter() if device.type == "cuda" else time.process_time() / torch.get_num_threads()


def rate(work, amount, device):
    """`amount` of each `work()` a second, over RATE_SECONDS."""
    seconds_of(work, device)  # warms up
    taken, done = 0.0, 0
    while taken < RATE_SECONDS:
        taken += seconds_of(work, device)
        done += 1
    return done * amount / taken


def peak(device, dtype):
    """FLOP/s of a square matrix product."""
    side = 2048 if device.type == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return rate(lambda: a @ b, 2 * side**3, device)


def bandwidth(device):
    """Bytes read and written a second by a copy."""
    source = torch.ones(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return rate(lambda: target.copy_(source), 2 * source.nbytes, device)


def measured(features, k):
    """Seconds of an iteration."""
    short, long = (
        seconds_of(lambda n=n: fit(features, k, iterations=n, seed=0), features.device) for n in (1, 1 + ITERATIONS)
    )
    return (long - short) / ITERATIONS


def compare(options):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    torch.set_num_threads(options.threads)
    fused = device.type == "cuda"
    rows = {size: [] for size in SIZES[device.type]}
    for turn in range(options.turns + 1):
        for n, k, d in rows:
            generator = torch.Generator(device=device).manual_seed(0)
            features = torch.randn(n, d, generator=generator, device=device).to(dtype)
            if not turn:  # warms up
                fit(features[: max(2 * k, 4096)], k, iterations=1)
                continue
            before = peak(device, dtype), bandwidth(device)
            took = measured(features, k)
            flops, memory = ((a + b) / 2 for a, b in zip(before, (peak(device, dtype), bandwidth(device)), strict=True))
            # What was measured is what products reach, on a CPU; a GPU's kernel has its share of it to prove.
            machine = Machine(1, flops, memory, memory, efficiency=EFFICIENCY if fused else 1.0, fused=fused)
            cost = iteration(Problem(n, k, d, feature_bytes=dtype.itemsize), machine)
            rows[n, k, d].append((cost.seconds, took, cost.seconds / took, cost.flop / flops / took, flops, memory))
    every = [row for found in rows.values() for row in found]
    flops, memory = (statistics.median(row[column] for row in every) for column in (4, 5))
    name = torch.cuda.get_device_name() if fused else f"CPU, {options.threads} threads"
    print(f"{name}, torch {torch.__version__}: product {flops / 1e12:.3g} TFLOP/s, memory {memory / 1e9:.3g} GB/s")
    print("\n| N | k | d | predicted | measured | predicted / measured | share of the peak |")
    print("|---|---|---|---|---|---|---|")
    off = 0.0
    for (n, k, d), found in rows.items():
        predicted, took, ratio, share = (statistics.median(column) for column in list(zip(*found, strict=True))[:4])
        off = max(off, abs(ratio - 1))
        print(f"| {n:,} | {k:,} | {d} | {span(predicted)} | {span(took)} | {ratio:.2f} | {share:.0%} |")
    print(f"\nthe largest error is {off:.0%}   (limit {LIMIT:.0%})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--bf16", action="store_true", help="features in bf16")
    parser.add_argument("--table", action="store_true", help="only the thesis' settings on clusters of 64 and 512 GPUs")
    options = parser.parse_args()
    if not options.table:
        return compare(options)
    print("\n".join(table(tuple(clusters.shipped(name) for name in ("v100_32gb", "h100")))))


if __name__ == "__main__":
    main()
