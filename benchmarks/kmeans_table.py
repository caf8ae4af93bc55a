"""The thesis' settings by the cost model of plan/kmeans_cost.py: the table of docs/kmeans.md, which
`python benchmarks/kmeans_cost.py --table` prints."""

from collections.abc import Iterator
from dataclasses import replace

from launcher.plan.kmeans_cost import GB, TERA, Problem, iteration, machine
from launcher.spec.schema import ClusterConfig

# DeeperCluster's two levels (thesis 3.3.1), and what the thesis took for an iteration of each.
THESIS = (
    ("96M into 4", Problem(96_000_000, 4, 4096), 60.0),
    ("23M into 80,000, one of four", Problem(23_000_000, 80_000, 4096), 240.0),
    ("all four together", Problem(4 * 23_000_000, 80_000, 4096, m=4), 240.0),
)


def table(clusters: tuple[ClusterConfig, ...], gpus: tuple[int, ...] = (64, 512)) -> Iterator[str]:
    """The thesis' settings on so many GPUs of each cluster, as lines of Markdown."""
    titles = (
        "cluster | GPUs | features | TFLOP a GPU | arithmetic | reading | update | sent a GPU | travels | iteration"
    )
    yield f"| | {titles} |"
    yield "|---" * 11 + "|"
    for name, given, _ in THESIS:
        for cluster in clusters:
            for ranks in gpus:
                problem = replace(given, feature_bytes=2) if cluster.bf16 else given
                nodes = ranks // cluster.gpus_per_node
                cost = iteration(problem, machine(cluster, nodes, cluster.gpus_per_node, problem, bf16=True))
                kind = "bf16" if cluster.bf16 else "fp32"
                yield (
                    f"| {name} | {cluster.name} | {ranks} | {kind} | {cost.flop / TERA:.3g} | {span(cost.arithmetic)} "
                    f"| {span(cost.reading)} | {span(cost.update)} | {cost.sent_bytes / GB:.3g} GB "
                    f"| {span(cost.network)} | {span(cost.seconds)} |"
                )


def span(seconds: float) -> str:
    """In the unit that suits it."""
    return f"{1000 * seconds:.2g} ms" if seconds < 0.1 else f"{seconds:.2g} s" if seconds < 100 else f"{seconds:.0f} s"
