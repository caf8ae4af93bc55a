"""The result of a clustering: a folder that is there whole or not at all.

clusters/                         or what out= says
    summary.json                  what was clustered, how, and how well; sizes of the clusters
    centroids.safetensors         centroids fp32 [k, d] and counts int64 [k]; with m: super_centroids [m, d],
                                  super_counts [m], centroids [m, k, d], counts [m, k]
    assignments/part-0000.npy     int64 [n], of each shard's rows in their order; with m: c k + its cluster within c.
                                  -1: an image that cannot be decoded
    entropy.npy                   float64 [k] or [m k], nats, where the images have labels; NaN: an empty cluster
"""

import contextlib
import glob
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from launcher.errors import InputError
from launcher.kmeans import Clusters, Hierarchy, cluster_entropy, sharded_nmi, size_histogram
from launcher.run.files import read_json, write_json
from launcher.run.folder import RunDir
from launcher.spec.runspec import RunSpec
from methods.engine.features import digest_of
from methods.engine.job import Job
from methods.kmeans.sources import Source

SUMMARY = "summary.json"
SCORES = ("inertia_last", "clusters_empty", "converged", "nmi_labels", "entropy_mean")  # for `sslrun show`


@dataclass(frozen=True, eq=False)
class ClusteringResult:
    """assignments: int64 [n], of this rank's features, numbered over all clusters. The rest is equal on all ranks."""

    assignments: torch.Tensor
    tensors: dict[str, torch.Tensor]
    counts: torch.Tensor
    inertia: Any  # after each iteration; with m: {"super": [...], "sub": [[...], ...]}
    inertia_last: float
    iterations: int
    converged: bool | None
    bytes_per_iteration: int  # that a rank gives to the all-reduce
    reassigned: list[float] | None = None  # share of the features, in each iteration
    skipped: list[float] | None = None  # share of the comparisons that bounds spared, in each iteration

    @classmethod
    def of_clusters(cls, found: Clusters) -> "ClusteringResult":
        return cls(
            assignments=found.assignments.cpu(),
            tensors={"centroids": found.centroids, "counts": found.counts},
            counts=found.counts.cpu(),
            inertia=list(found.inertia),
            inertia_last=found.inertia[-1],
            iterations=found.iterations,
            converged=bool(found.converged),
            bytes_per_iteration=found.bytes_per_iteration,
            reassigned=list(found.reassigned),
            skipped=list(found.skipped),
        )

    @classmethod
    def of_hierarchy(cls, found: Hierarchy) -> "ClusteringResult":
        top, k = found.super_clusters, found.sub_counts.shape[1]
        below = [list(part) for part in found.sub_inertia]
        return cls(
            assignments=(top.assignments * k + found.sub_assignments).cpu(),
            tensors={
                "super_centroids": top.centroids,
                "super_counts": top.counts,
                "centroids": found.sub_centroids,
                "counts": found.sub_counts,
            },
            counts=found.sub_counts.flatten().cpu(),
            inertia={"super": list(top.inertia), "sub": below},
            inertia_last=sum(part[-1] for part in below if part),
            iterations=max([top.iterations, *map(len, below)]),
            converged=None,  # some sub-clusterings may have
            bytes_per_iteration=found.bytes_per_iteration,
        )


def target_of(run: RunDir, spec: RunSpec) -> Path:
    """Where the result goes."""
    return Path(spec.method.out) if spec.method.out else run.path / "clusters"


def found(run: RunDir, spec: RunSpec) -> dict[str, Any] | None:
    """The summary of this very clustering, where it is done; on rank 0. Raises InputError where something else is, and
    OSError where that cannot be told."""
    target = target_of(run, spec)
    if not target.exists():
        return None
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError):
        summary = read_json(target / SUMMARY)
        if summary["identity"] == spec.identity:
            return summary
    raise InputError.of("out", target, "it exists, and nothing is overwritten", "give a folder that does not exist")


class Writer:
    """Writes the result beside its place, and puts it there by one rename. Every method is collective."""

    def __init__(self, job: Job, source: Source):
        self._job, self._source = job, source
        self.target = target_of(job.run, job.spec)
        self._begins = f".{self.target.name}.{job.spec.identity[:16]}."
        # Others may write there, too: nobody can lay a link where this will be.
        self._beside = self.target.with_name(self._begins + job.world.broadcast(secrets.token_hex(8)))
        self._agreed(self._try if job.world.is_main else None)

    def write(self, found: ClusteringResult, positions: np.ndarray) -> dict[str, Any]:
        """All files; returns the summary. positions: of this rank's samples in the data set, int64 [n]."""
        labels = self._source.labels
        judged = {} if labels is None else _judged(found, torch.from_numpy(labels[positions]))
        self._agreed(self._make if self._job.world.is_main else None)
        self._agreed(lambda: self._assignments(found.assignments, positions))
        summary = self._summary(found, judged) if self._job.world.is_main else None
        self._agreed((lambda: self._commit(found, judged, summary)) if self._job.world.is_main else None)
        return self._job.world.broadcast(summary)

    def _try(self) -> None:
        """A place where one cannot write is no surprise after hours."""
        self._make()
        shutil.rmtree(self._beside)

    def _make(self) -> None:
        for leftover in self.target.parent.glob(f"{glob.escape(self._begins)}*"):  # of a start that was killed
            shutil.rmtree(leftover, ignore_errors=True)
        (self._beside / "assignments").mkdir(parents=True)

    def _assignments(self, assignments: torch.Tensor, positions: np.ndarray) -> None:
        """The rank that holds a file's first sample writes it; the others send it what they have of it."""
        world, total = self._job.world, len(self._source.dataset)
        starts = [total * rank // world.size for rank in range(world.size + 1)]
        files = self._source.files()
        owner = [max(0, int(np.searchsorted(starts, first, side="right")) - 1) for _, first, _ in files]
        owner = [min(rank, world.size - 1) for rank in owner]
        rows = torch.stack([torch.from_numpy(positions), assignments], dim=1)
        parts = [rows[:0]] * world.size
        for rank in range(world.size):
            mine = [files[number] for number in range(len(files)) if owner[number] == rank]
            if mine:  # neighbours
                inside = (positions >= mine[0][1]) & (positions < mine[-1][2])
                parts[rank] = rows[torch.from_numpy(inside)]
        received = world.exchange(parts).numpy()
        for number, (name, first, last) in enumerate(files):
            if owner[number] == world.rank:
                whole = np.full(last - first, -1, np.int64)
                here = received[(received[:, 0] >= first) & (received[:, 0] < last)]
                whole[here[:, 0] - first] = here[:, 1]
                np.save(self._beside / "assignments" / f"{name}.npy", whole)

    def _summary(self, found: ClusteringResult, judged: dict[str, Any]) -> dict[str, Any]:
        config, counts = self._job.spec.method, found.counts
        members = counts[counts > 0].double()
        return {
            "format": 1,
            "identity": self._job.spec.identity,
            "run": self._job.run.id,
            "features": config.features,
            "n": int(counts.sum()),
            "d": int(found.tensors["centroids"].shape[-1]),
            **{name: getattr(config, name) for name in ("k", "m", "metric", "init", "empty", "deterministic")},
            "seed": self._job.spec.seed,
            "ranks": self._job.world.size,
            "iterations": found.iterations,
            "converged": found.converged,
            "inertia": found.inertia,
            "inertia_last": found.inertia_last,
            "reassigned": found.reassigned,
            "skipped": found.skipped,
            "clusters_empty": int((counts == 0).sum()),
            "sizes": {
                "least": int(members.min()),
                "median": float(members.median()),
                "largest": int(members.max()),
                "histogram": [vars(part) for part in size_histogram(counts)],
            },
            "nmi_labels": judged.get("nmi"),
            "entropy_mean": judged.get("mean"),
            "bytes_per_iteration": found.bytes_per_iteration,
            "seconds": self._job.clock.seconds(),
            "digest": digest_of(found.tensors),
        }

    def _commit(self, found: ClusteringResult, judged: dict[str, Any], summary: dict[str, Any]) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in found.tensors.items()}
        save_file(tensors, self._beside / "centroids.safetensors")
        if "entropy" in judged:
            np.save(self._beside / "entropy.npy", judged["entropy"].numpy())
        write_json(self._beside / SUMMARY, summary)
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._beside.rename(self.target)  # a folder with something in it is in the way, and stays

    def _agreed(self, work: Any) -> None:
        """Do `work`; where it fails on any rank, all raise InputError with the field to change."""
        failed = None
        try:
            if work:
                work()
        except (OSError, SafetensorError) as error:
            failed = f"cannot be written ({getattr(error, 'strerror', None) or error})"
        failures = [said for said in self._job.world.gather(failed) if said]
        if failures:
            field = "out" if self._job.spec.method.out else "runs"
            raise InputError.of(field, self.target, failures[0], "free some space, or give another folder")


def _judged(found: ClusteringResult, labels: torch.Tensor) -> dict[str, Any]:
    """Entropy of the labels within clusters, its mean weighted by their size, and NMI with them. Collective."""
    entropy = cluster_entropy(found.assignments, labels, found.counts.numel())
    members = found.counts.double()
    mean = float((torch.nan_to_num(entropy) * members).sum() / members.sum())
    return {"entropy": entropy, "mean": round(mean, 4), "nmi": round(sharded_nmi(found.assignments, labels), 4)}
