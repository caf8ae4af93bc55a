"""(spec) -> the plan of `sslrun kmeans`: how a clustering lies on its cluster, what it takes, and why. Pure."""

from dataclasses import dataclass

from launcher.plan import cost, kmeans_cost, layouts
from launcher.spec import registry
from launcher.spec.planned import Planned
from launcher.spec.runspec import RunSpec


@dataclass(frozen=True)
class ClusteringPlan(Planned):
    """The JSON of `sslrun kmeans --plan`, in the units of `sslrun plan`."""

    method: str
    nodes: int
    gpus_per_node: int
    world_size: int
    steps: int  # iterations
    features: int
    clusters: int
    hours: float
    gpu_hours: float
    spare_nodes: int
    spare_gpu_hours: float
    sent_gb: float  # by a rank
    disk_gb: float
    signal_delay_s: int
    waste: str | None
    warnings: tuple[str, ...]
    why: dict[str, str]


def make(spec: RunSpec) -> ClusteringPlan:
    """Raises InputError where the cluster's figures cannot be."""
    config, cluster = spec.method, spec.cluster
    cluster.validate()
    rounds = registry.method(config.name).rounds(config)
    rows = config.rows or getattr(spec.data, "images", None) or 0
    tflops = cluster.efficiency * cost.peak_tflops(cluster, config.precision, spec.tasks_per_node)
    features = cost.features_seconds(rounds, rows, spec.world_size, tflops)
    seconds, sent = cost.kmeans_seconds(rounds, rows, spec.nodes, spec.tasks_per_node, cluster)
    hours = (features + seconds) / 3600
    centroids = sum(4 * c.m * c.k * c.d for c in rounds.clusterings)
    share = kmeans_cost.EFFICIENCY if cluster.gpus_per_node else cluster.efficiency
    ranged = spec.least_nodes is not None
    disk = (2 * centroids + 8 * rows + rows * rounds.host_bytes) / 1e9
    return ClusteringPlan(
        method=config.name,
        nodes=spec.nodes,
        gpus_per_node=cluster.gpus_per_node,
        world_size=spec.world_size,
        steps=config.iterations,
        features=rows,
        clusters=config.k * (config.m or 1),
        hours=round(hours, 4),
        gpu_hours=round(hours * (spec.world_size if cluster.gpus_per_node else 0), 3),
        spare_nodes=cluster.spare_nodes,
        spare_gpu_hours=round(layouts.spare_gpu_hours(spec, hours), 3),
        sent_gb=round(sent, 3),
        disk_gb=round(disk, 3),
        signal_delay_s=cluster.signal_delay_s
        or cost.signal_delay(centroids / 1e9 / cluster.disk_gb_s, cluster.timeout_min),
        waste=None,
        warnings=(),
        why={
            "hours": f"features {features:.3g} s, k-means {seconds:.3g} s at {share:.0%} of the fp32 peak, assumed",
            **({"gpu_hours": f"on {spec.nodes} nodes, the most of nodes={spec.asked_nodes}"} if ranged else {}),
            **layouts.why_spares(spec, spec.nodes, hours),
            "sent_gb": f"sums and counts of {config.iterations} iterations, a rank",
            "disk_gb": "centroids twice, assignments" + (", features until they are clustered" if features else ""),
        },
    )
