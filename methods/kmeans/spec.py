"""`sslrun kmeans`: features that lie in files, or come out of a run's backbone, into clusters. It trains nothing.

sslrun kmeans features=/data/features k=80000 nodes=2          # a folder of .npy or .safetensors shards
sslrun kmeans features=deepercluster-demo k=50                 # the backbone of a run, on the run's images
"""

from dataclasses import dataclass
from functools import partial

from launcher.errors import InputError
from launcher.spec.contract import Clustering, Recipe, Rounds, Work
from launcher.spec.fields import at_least, check_ranges, choice, later, not_negative, ops
from methods.backbones.spec import BACKBONES
from methods.kmeans.folder import SUFFIXES, scan  # noqa: F401 (for compose)

RECIPE = "features"  # there is nothing to choose

_count = partial(at_least, 1, reason="it must be at least 1", fix="give a positive number")


@dataclass
class KMeansConfig:
    """What to cluster, and how; the fields of `launcher.kmeans.fit`. A person gives those up to `keep_work_s`."""

    name: str = "kmeans"
    features: str = ""  # absolute path of a folder of shards, or of a run
    layer: str | None = None  # of a run's backbone, as torch names its modules; its output by default
    k: int = _count(0)  # to be given
    m: int | None = _count(None)  # first into m clusters, then into k within each
    iterations: int = _count(10)
    metric: str = choice("l2", "cosine")
    init: str = choice("random", "k-means++")
    empty: str = choice("split", "keep", "resample")
    deterministic: bool = False
    out: str | None = ops(None)  # a folder that does not exist yet; the run's `clusters` by default
    # Seconds of work that a kill may cost; null: all of it.
    keep_work_s: float | None = ops(not_negative(10.0, fix="give seconds, 0 or more, or null"))

    # Filled in when the run is made: what the features are.
    rows: int | None = None
    dim: int | None = None
    content: str | None = None  # digest of the shards' names, shapes and times
    backbone: str | None = None
    image_size: int = 0
    interpolation: str = later("bilinear")  # of the centre crops
    precision: str = "fp32"  # of the backbone
    dropout: float = 0.0
    workers: int = ops(0)  # data-loader processes a rank


GIVEN = (
    "features", "layer", "k", "m", "iterations", "metric", "init", "empty", "deterministic", "out", "keep_work_s",
)  # fmt: skip


def features() -> Recipe:
    """The only recipe."""
    return Recipe(method=KMeansConfig(), data=None, images=0, source="given", expect="clusters, and their sizes")


def validate(config: KMeansConfig, images: int | None) -> None:
    """Raises InputError naming the first field that cannot work. images: of a run's data, where known."""
    check_ranges(config, prefix="")
    total = config.rows if config.rows is not None else images
    for field in ("k", "m"):
        value = getattr(config, field)
        if total is not None and value is not None and value > total:
            raise InputError.of(field, value, f"more clusters than the {total} features", f"use at most {total}")


def rounds(config: KMeansConfig) -> Rounds:
    """One round: features, where there is a backbone, and their clustering."""
    backbone = BACKBONES.get(config.backbone or "")
    d = config.dim or (backbone.feature_dim if backbone else 0)
    flops = 2 * backbone.macs_at(config.image_size) if backbone else 0.0
    first = Clustering(config.m or config.k, d, config.iterations)
    second = (Clustering(config.k, d, config.iterations, m=config.m),) if config.m else ()
    return Rounds(count=1, forward_flops=flops, clusterings=(first, *second), host_bytes=4 * d if backbone else 0)


WORK = Work(
    name="kmeans",
    summary="clusters features that lie in files or come out of a run",
    config=KMeansConfig,
    recipes={RECIPE: features},
    validate=validate,
    entry="methods.kmeans.job:cluster",
    rounds=rounds,
)
