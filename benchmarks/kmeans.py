"""python benchmarks/kmeans.py [--turns 5] [--iterations 10] [--sizes 200000x256x1000,100000x64x5000]   some minutes.

`launcher.kmeans.fit` beside faiss and scikit-learn's Lloyd, in one run: the same features, the same initial centroids,
the same number of iterations and threads. All take turns in one process, so that what else runs on the machine meets
all of them; what counts are the ratios of each turn. "faiss" ends with the last update of its centroids; "faiss +
search" then looks up the assignments to these, as ours and scikit-learn's do: 11 assignments in 10 iterations. The
product bound is what the products of 10 assignments alone take at the speed of this machine's float32 products,
measured in the same turns. Last, two ranks of one thread beside one rank of one.

On a machine with a GPU it also runs DeeperCluster's own share of one GPU (thesis 3.3.1): 1.44M features of dimension
4096, 80,000 clusters, in bfloat16.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import faiss
import numpy as np
import torch
import torch.distributed as dist
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from launcher.kmeans import fit
from launcher.kmeans.nearest import multiplies_bfloat16

SIZES = "200000x256x1000,100000x64x5000"
LIMITS = {"fp32": 0.9, "bf16": 0.6}
SHARE = (1_440_000, 4096, 80_000)  # of one of 16 GPUs: 23M features into 80,000 clusters


def data(n, d, k):
    """Features around k centres that overlap, and centroids to start from."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(k, d, generator=generator)
    features = centres[torch.randint(k, (n,), generator=generator)] + torch.randn(n, d, generator=generator)
    return features, features[torch.randperm(n, generator=generator)[:k]].clone()


def ours(features, initial, iterations):
    return fit(features, len(initial), iterations=iterations, init=initial, empty="keep").inertia


def faiss_lloyd(features, initial, iterations, search=False):
    k, d = initial.shape
    kmeans = faiss.Kmeans(d, k, niter=iterations, max_points_per_centroid=len(features), min_points_per_centroid=1)
    kmeans.train(features.numpy(), init_centroids=initial.numpy())
    if search:
        kmeans.assign(features.numpy())
    return kmeans.obj


def sklearn_lloyd(features, initial, iterations):
    kmeans = KMeans(
        len(initial), init=initial.numpy(), n_init=1, max_iter=iterations, tol=0, algorithm="lloyd", copy_x=False
    )
    return [kmeans.fit(features.numpy()).inertia_]


def timed(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def product_peak(seconds=1.0):
    """GFLOP/s of float32 products, the best of some."""
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        took, _ = timed(lambda: a @ b)
        best = max(best, 2 * size**3 / took / 1e9)
    return best


def beside(n, d, k, iterations, threads, turns):
    """All sides in turns, at one size."""
    features, initial = data(n, d, k)
    half = features.bfloat16()
    sides = {
        "ours fp32": lambda: ours(features, initial, iterations),
        "ours bf16": lambda: ours(half, initial, iterations),
        "faiss": lambda: faiss_lloyd(features, initial, iterations),
        "faiss + search": lambda: faiss_lloyd(features, initial, iterations, search=True),
        "scikit-learn": lambda: sklearn_lloyd(features, initial, iterations),
    }
    taken, found, peaks = {name: [] for name in sides}, {}, []
    for call in (ours, faiss_lloyd):  # once to warm up, on little
        call(features[: 4 * k], initial, 1)
    for turn in range(turns):
        peaks.append(product_peak())
        names = list(sides)[turn % len(sides) :] + list(sides)[: turn % len(sides)]
        for name in names:
            took, found[name] = timed(sides[name])
            taken[name].append(took)
    peak, flops = max(peaks), 2.0 * n * d * k * iterations
    load = os.getloadavg()[0]
    print(
        f"\nN={n:,} d={d} k={k:,}, {iterations} iterations, {threads} threads, {turns} turns; load average {load:.1f}"
    )
    print(f"float32 products: {peak:.0f} GFLOP/s at best; they alone take {flops / peak / 1e9:.2f} s")
    print(f"{'':16}{'median':>10}{'lowest':>10}{'to faiss, median (lowest to highest)':>40}{'share of products':>20}")
    for name, rows in taken.items():
        ratios = [own / other for own, other in zip(rows, taken["faiss"], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        share = flops / peak / 1e9 / min(rows)
        print(f"{name:16}{statistics.median(rows):8.2f} s{min(rows):8.2f} s{spread:>40}{share:19.0%} ")
    # faiss notes the inertia before an iteration's update, we after it; so the last but one of ours is faiss' last.
    print(f"inertia: ours {found['ours fp32'][-2]:.8g}, faiss {found['faiss'][-1]:.8g} after {iterations - 1} updates")
    fast = "" if multiplies_bfloat16(torch.device("cpu")) else " (this CPU has no bfloat16 products)"
    print(f"limits, to faiss: fp32 {LIMITS['fp32']}; bf16 {LIMITS['bf16']} at the first size{fast}")
    labels_in_bfloat16(half[:20_000], initial)


def labels_in_bfloat16(half, initial):
    """How many labels differ from float64, when centroids are rounded to bfloat16 as the features are."""
    from launcher.kmeans.nearest import Scratch, Tiles, ones_for

    tiles = Tiles(initial, spherical=False, half=True, exact=False)
    scratch = Scratch(512, half.shape[1], ones_for(True, half.shape[1]), len(initial))
    differ = 0
    rounded = initial.bfloat16().double()
    for x in half.split(512):
        scores = x.double() @ rounded.T - 0.5 * rounded.square().sum(dim=1)
        differ += int((tiles.nearest(x.float(), scratch) != scores.argmax(dim=1)).sum())
    print(f"bfloat16 products: {differ / len(half):.3%} of {len(half):,} labels differ from float64 (limit 0.1 %)")


def serve(rank, world_size, folder, n, d, k, iterations, turns):
    """One of the ranks of one thread: in turns alone (rank 0) and with the other."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size)
    alone = dist.new_group([0])
    features, initial = data(n, d, k)
    mine = features.tensor_split(world_size)[rank].clone()
    ratios = []
    for _ in range(turns):
        if rank == 0:
            single, _ = timed(lambda: fit(features, k, iterations=iterations, init=initial, empty="keep", group=alone))
        dist.barrier()
        both, clusters = timed(lambda: fit(mine, k, iterations=iterations, init=initial, empty="keep"))
        if rank == 0:
            ratios.append(single / both)
    if rank == 0:
        expected = 8 * (k * (d + 2) + 2)
        print(f"\n2 ranks of one thread, N={n:,} d={d} k={k:,}: {statistics.median(ratios):.2f} times as fast as one "
              f"({min(ratios):.2f} to {max(ratios):.2f}; limit 1.8); {clusters.bytes_per_iteration:,} bytes an "
              f"iteration, expected {expected:,}; load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    dist.destroy_process_group()


def share_of_a_gpu(n, d, k, iterations=3):
    """DeeperCluster's own share, in bfloat16."""
    device = torch.device("cuda")
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(5):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(50):
        a @ a
    torch.cuda.synchronize()
    peak = 50 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12
    features = torch.empty(n, d, device=device, dtype=torch.bfloat16)
    for part in features.split(16384):
        part.normal_()
    torch.cuda.reset_peak_memory_stats()
    before, ends = torch.cuda.memory_allocated(), []

    def note(_):
        torch.cuda.synchronize()
        ends.append(time.perf_counter())

    fit(features, k, iterations=iterations, empty="keep", progress=note)
    each = (ends[-1] - ends[0]) / (len(ends) - 1)
    speed = 2.0 * n * d * k / each / 1e12
    memory = (torch.cuda.max_memory_allocated() - before) / 1e9
    print(f"\n{torch.cuda.get_device_name()}: N={n:,} d={d} k={k:,} bfloat16: {each:.2f} s an iteration, "
          f"{speed:.0f} TFLOP/s, {speed / peak:.0%} of the {peak:.0f} of plain products (limit 55 %); "
          f"{memory:.1f} GB over the features (limit 6)")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default=SIZES, help="NxDxK, several by comma")
    parser.add_argument("--only", choices=["beside", "ranks", "gpu"], help="a part of it")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes.split(",")]
    if options.rank:
        rank, folder = options.rank.split(",", 1)
        for number, size in enumerate(sizes):
            Path(folder, str(number)).mkdir(exist_ok=True)
            serve(int(rank), 2, f"{folder}/{number}", *size, options.iterations, options.turns)
        return
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    if options.only in (None, "beside"):
        with threadpool_limits(options.threads):
            for size in sizes:
                beside(*size, options.iterations, options.threads, options.turns)
    if options.only in (None, "ranks"):
        with tempfile.TemporaryDirectory() as folder:
            ranks = [
                subprocess.Popen(
                    [sys.executable, *sys.argv, "--rank", f"{rank},{folder}"],
                    env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
                )
                for rank in range(2)
            ]
            for rank in ranks:
                if rank.wait():
                    sys.exit("a rank failed")
    if options.only in (None, "gpu"):
        if torch.cuda.is_available():
            share_of_a_gpu(*SHARE)
        else:
            print("\nno GPU: DeeperCluster's own share was not run")


if __name__ == "__main__":
    np.random.seed(0)
    main()
