"""DeeperCluster's own share of one GPU, with and without bounds: the last part of benchmarks/kmeans.py."""

import time
from importlib.util import find_spec
from itertools import pairwise

import torch

from launcher.kmeans import fit

ITERATIONS = 4  # the first has no bounds yet; those after it are timed
LIMITS = {"share of the peak": 0.55, "gigabytes over the features": 6}


def share_of_a_gpu(n, d, k, device):
    """n features of dimension d into k clusters, in bfloat16 (float32 on a CPU); returns what was measured.

    Noise, where bounds spare little, and a mixture of k Gaussians, where they spare much."""
    peak = peak_of(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"\n{name}: N={n:,} d={d} k={k:,} {dtype}; plain products reach {peak / 1e12:.3g} TFLOP/s")
    measured = {"device": name, "n": n, "d": d, "k": k, "peak": peak, "sides": {}}
    for kind in ("noise", "mixture"):
        features = filled(kind, n, d, k, device, dtype)
        for skip in (False, True):
            found = measured["sides"][f"{kind}, {'with' if skip else 'without'} bounds"] = one(features, k, skip)
            each, shares = found["seconds"], " ".join(f"{share:.0%}" for share in found["skipped"])
            speeds = " ".join(f"{2.0 * n * d * k / seconds / peak:.0%}" for seconds in each)
            print(f"{kind}, {'with' if skip else 'without'} bounds: " + " ".join(f"{s:.2f}" for s in each)
                  + f" s an iteration, {speeds} of the peak (limit 55 %, of what is not skipped); skipped {shares}; "
                  f"{found['gigabytes']:.1f} GB over the features (limit 6)")  # fmt: skip
        if find_spec("flash_kmeans") is not None and device.type == "cuda":
            seconds = measured["sides"][f"{kind}, flash-kmeans"] = flash(features, k)
            print(f"{kind}, flash-kmeans: {seconds:.2f} s an iteration")
    return measured


def filled(kind, n, d, k, device, dtype):
    features = torch.empty(n, d, device=device, dtype=dtype)
    centres = torch.randn(k, d, device=device, dtype=dtype) if kind == "mixture" else None
    for part in features.split(16384):
        part.normal_()
        if centres is not None:
            part += centres[torch.randint(k, (len(part),), device=device)]
    return features


def one(features, k, skip):
    """Seconds of each iteration but the first, whose E-step comes with that of the start."""
    device, ends, skipped = features.device, [], []
    synchronize(device)
    before = torch.cuda.memory_allocated() if device.type == "cuda" else 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def note(told):
        synchronize(device)
        ends.append(time.perf_counter())
        skipped.append(told.skipped)

    fit(features, k, iterations=ITERATIONS, empty="keep", progress=note, skip=skip)
    peak = torch.cuda.max_memory_allocated() - before if device.type == "cuda" else 0
    return {
        "seconds": [b - a for a, b in pairwise(ends)],
        "skipped": skipped,
        "gigabytes": peak / 1e9,
    }


def flash(features, k):
    """Seconds of an iteration of flash-kmeans: of three, less those of one."""
    from flash_kmeans import batch_kmeans_Euclid

    taken = []
    for iterations in (1, 1, 3):  # the first compiles
        synchronize(features.device)
        began = time.perf_counter()
        batch_kmeans_Euclid(features[None], n_clusters=k, tol=0, max_iters=iterations)
        synchronize(features.device)
        taken.append(time.perf_counter() - began)
    return (taken[2] - taken[1]) / 2


def peak_of(device, turns=50):
    """FLOP/s of plain products of the kind."""
    side, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a = torch.randn(side, side, device=device, dtype=dtype)
    for _ in range(5):
        a @ a
    synchronize(device)
    start = time.perf_counter()
    for _ in range(turns):
        a @ a
    synchronize(device)
    return turns * 2 * side**3 / (time.perf_counter() - start)


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
