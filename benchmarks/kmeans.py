"""python benchmarks/kmeans.py [--turns 5] [--kinds network,mixture,noise] [--json FILE]            some minutes.

`launcher.kmeans.fit` beside faiss, scikit-learn's Lloyd and, where `pip install superkmeans` was done, SuperKMeans, in
one run: the same features, initial centroids (but SuperKMeans, which draws its own), iterations and threads. The
features: of SimCLR's demo network over as many patches (trained first, where `--runs` does not hold it), a mixture of k
Gaussians that overlap, and noise. All sides take turns in one process, so that what else runs on the machine meets all
of them; what counts are the ratios of each turn, of time on the clock and of the processors' time. "faiss" ends with
the last update of its centroids; "faiss + search" then looks up the assignments to these, as ours and scikit-learn's
do: 11 assignments in 10 iterations. Inertia is that of the last centroids. Last, two ranks of one thread beside one.

    --sizes 1000000x256x8000 --kinds network      more patches: some minutes to make, kept beside the runs
    --only hierarchy                              1e6 x 256 into 4 x 2,000 beside faiss's flat 8,000: an hour
    --only gpu                                    DeeperCluster's own share of one GPU (thesis 3.3.1), 1.44M x 4096 into
                                                  80,000 in bfloat16, with and without bounds, beside flash-kmeans
    --only gpu --device cpu --share 20000x64x500  the same, tried out without a GPU

`ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 FAISS_OPT_LEVEL=AVX2 OPENBLAS_CORETYPE=Haswell` in front of it
shows a CPU without AVX-512.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the launcher starts its ranks

import faiss
import numpy as np
import torch
import torch.distributed as dist
from kmeans_features import KINDS, made
from kmeans_gpu import share_of_a_gpu
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from launcher.kmeans import fit, hierarchical
from launcher.kmeans.nearest import multiplies_bfloat16

SIZES = "200000x256x1000,100000x64x5000"
LIMITS = {"network": 0.7, "mixture": 0.7, "noise": 1.1}  # of faiss's time
SHARE = "1440000x4096x80000"  # of one of 16 GPUs: 23M features into 80,000 clusters
LARGE = "1000000x256x8000"


def ours(features, initial, iterations, skip=True):
    return fit(features, len(initial), iterations=iterations, init=initial, empty="keep", skip=skip)


def faiss_lloyd(features, initial, iterations, search=False):
    k, d = initial.shape
    kmeans = faiss.Kmeans(d, k, niter=iterations, max_points_per_centroid=len(features), min_points_per_centroid=1)
    kmeans.train(features.numpy(), init_centroids=initial.numpy())
    if search:
        kmeans.assign(features.numpy())
    return torch.from_numpy(kmeans.centroids)


def sklearn_lloyd(features, initial, iterations):
    given = {"n_init": 1, "max_iter": iterations, "tol": 0, "algorithm": "lloyd", "copy_x": False}
    return torch.from_numpy(KMeans(len(initial), init=initial.numpy(), **given).fit(features.numpy()).cluster_centers_)


def super_kmeans(features, initial, iterations, threads):
    from superkmeans import SuperKMeans

    k, d = initial.shape
    given = {"iters": iterations, "n_threads": threads, "hierarchical": False, "early_termination": False}
    return torch.from_numpy(np.array(SuperKMeans(k, d, **given).train(features.numpy())))


def inertia(features, centroids):
    """Sum of squared distances to the nearest, by faiss's search for all alike."""
    return float(faiss.knn(features.numpy(), centroids.numpy(), 1)[0].astype(np.float64).sum())


def timed(call):
    """(seconds on the clock, the processors' seconds), what it gave."""
    start, worked = time.perf_counter(), time.process_time()
    result = call()
    return (time.perf_counter() - start, time.process_time() - worked), result


def product_peak(seconds=1.0):
    """GFLOP/s of float32 products, the best of some."""
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        (took, _), _ = timed(lambda: a @ b)
        best = max(best, 2 * size**3 / took / 1e9)
    return best


def beside(kind, n, d, k, options):
    """All sides in turns, at one size; returns what was measured."""
    features, initial = made(kind, n, d, k, options.runs)
    iterations, half = options.iterations, features.bfloat16()
    sides = {
        "ours": lambda: ours(features, initial, iterations),
        "without bounds": lambda: ours(features, initial, iterations, skip=False),
        "faiss": lambda: faiss_lloyd(features, initial, iterations),
        "faiss + search": lambda: faiss_lloyd(features, initial, iterations, search=True),
        "scikit-learn": lambda: sklearn_lloyd(features, initial, iterations),
        "SuperKMeans": lambda: super_kmeans(features, initial, iterations, options.threads),
    }
    if multiplies_bfloat16(torch.device("cpu")):
        sides["ours bf16"] = lambda: ours(half, initial, iterations)
    if find_spec("superkmeans") is None:
        del sides["SuperKMeans"]
    taken, found, peaks = {name: [] for name in sides}, {}, []
    for call in (ours, faiss_lloyd):  # once to warm up, on little
        call(features[: 4 * k], initial, 1)
    for turn in range(options.turns):
        peaks.append(product_peak())
        names = list(sides)[turn % len(sides) :] + list(sides)[: turn % len(sides)]
        for name in names:
            took, found[name] = timed(sides[name])
            taken[name].append(took)
    skipped = found["ours"].skipped
    centroids = {name: getattr(result, "centroids", result).float() for name, result in found.items()}
    ends = {name: inertia(features, each) for name, each in centroids.items()}
    flops, load = 2.0 * n * d * k * iterations, os.getloadavg()[0]
    print(f"\n{kind}: N={n:,} d={features.shape[1]} k={k:,}, {iterations} iterations, {options.threads} threads, "
          f"{options.turns} turns; load average {load:.1f}")  # fmt: skip
    print(f"float32 products: {max(peaks):.0f} GFLOP/s at best; they alone take {flops / max(peaks) / 1e9:.2f} s")
    print(f"{'':16}{'median':>10}{'to faiss, by the clock':>28}{'by processor time':>28}{'inertia to faiss':>18}")
    rows = {}
    for name, pairs in taken.items():
        clock, worked = ([a[i] / b[i] for a, b in zip(pairs, taken["faiss"], strict=True)] for i in (0, 1))
        rows[name] = {"seconds": [each for each, _ in pairs], "to_faiss": clock, "processor_to_faiss": worked}
        rows[name]["inertia"] = ends[name]
        median = statistics.median(rows[name]["seconds"])
        worse = ends[name] / ends["faiss"] - 1
        print(f"{name:16}{median:8.2f} s{spread(clock):>28}{spread(worked):>28}{worse:>+17.3%}")
    print("skipped: " + " ".join(f"{share:.0%}" for share in skipped) + f"; limit {LIMITS[kind]} of faiss's time")
    labels_in_bfloat16(half[:20_000], initial)
    sizes = {"kind": kind, "n": n, "d": features.shape[1], "k": k}
    return {**sizes, "sides": rows, "skipped": skipped, "load": load}


def spread(ratios):
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def levels(kind, n, d, k, options):
    """Into 4 x k / 4 clusters, as DeeperCluster does, beside faiss's k; once each."""
    features, initial = made(kind, n, d, k, options.runs)
    shares = []
    two, found = timed(
        lambda: hierarchical(
            features, (4, k // 4), iterations=options.iterations, progress=lambda told: shares.append(told.skipped)
        )
    )
    flat, centroids = timed(lambda: faiss_lloyd(features, initial, options.iterations))
    own = sum(course[-1] for course in found.sub_inertia)
    print(f"\n{kind}: N={n:,} into 4 x {k // 4:,}: {two[0]:.0f} s, faiss into {k:,}: {flat[0]:.0f} s "
          f"({two[0] / flat[0]:.2f}; by processor time {two[1] / flat[1]:.2f}); inertia "
          f"{own / inertia(features, centroids) - 1:+.2%}; load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    print("skipped, level by level: " + " ".join(f"{share:.0%}" for share in shares))
    return {"kind": kind, "n": n, "k": k, "seconds": two, "faiss": flat, "skipped": shares}


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
    features, initial = made("mixture", n, d, k)
    mine = features.tensor_split(world_size)[rank].clone()
    ratios = []
    for _ in range(turns):
        if rank == 0:
            (single, _), _ = timed(
                lambda: fit(features, k, iterations=iterations, init=initial, empty="keep", group=alone)
            )
        dist.barrier()
        (both, _), clusters = timed(lambda: fit(mine, k, iterations=iterations, init=initial, empty="keep"))
        if rank == 0:
            ratios.append(single / both)
    if rank == 0:
        expected = 8 * (k * (d + 2) + 2)
        print(f"\n2 ranks of one thread, N={n:,} d={d} k={k:,}: {statistics.median(ratios):.2f} times as fast as one "
              f"({min(ratios):.2f} to {max(ratios):.2f}; limit 1.8); {clusters.bytes_per_iteration:,} bytes an "
              f"iteration, expected {expected:,}; load average {os.getloadavg()[0]:.1f}")  # fmt: skip
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", help=f"NxDxK, several by comma; {SIZES}, and {LARGE} of a hierarchy")
    parser.add_argument("--kinds", default=",".join(KINDS), help="of features")
    parser.add_argument("--runs", default="runs", help="where the demo's run is, or will be")
    parser.add_argument("--only", choices=["beside", "ranks", "hierarchy", "gpu"], help="a part of it")
    parser.add_argument("--device", default="cuda", help="of --only gpu")
    parser.add_argument("--share", default=SHARE, help="NxDxK of --only gpu")
    parser.add_argument("--json", type=Path, help="writes what was measured there, too")
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    options = parser.parse_args()
    of_text = lambda text: [tuple(map(int, size.split("x"))) for size in text.split(",")]  # noqa: E731
    sizes, kinds, measured = of_text(options.sizes or SIZES), options.kinds.split(","), {}
    if options.rank:
        rank, folder = options.rank.split(",", 1)
        for number, size in enumerate(sizes):
            Path(folder, str(number)).mkdir(exist_ok=True)
            serve(int(rank), 2, f"{folder}/{number}", *size, options.iterations, options.turns)
        return
    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    with threadpool_limits(options.threads):
        if options.only in (None, "beside"):
            pairs = [(kind, size) for size in sizes for kind in kinds if kind != "network" or size[1] == 256]
            measured["beside"] = [beside(kind, *size, options) for kind, size in pairs]
        if options.only == "hierarchy":
            sizes = of_text(options.sizes or LARGE)
            measured["hierarchy"] = [levels(kind, *size, options) for size in sizes for kind in kinds]
    if options.only in (None, "ranks"):
        in_ranks()
    if options.only in (None, "gpu"):
        if options.device == "cpu" or torch.cuda.is_available():
            measured["gpu"] = share_of_a_gpu(*of_text(options.share)[0], torch.device(options.device))
        else:
            print("\nno GPU: DeeperCluster's own share was not run")
    if options.json:
        options.json.write_text(json.dumps(measured))


def in_ranks():
    """Two processes of this program, of one thread each."""
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


if __name__ == "__main__":
    np.random.seed(0)
    main()
