"""What an iteration of sharded k-means costs: seconds and bytes from N, k, d, ranks and the rates of a machine. Pure.

    T = max(2 N k d / (G eta P), N d b / (G B_feat)) + T_update + 2 (G - 1)/G 8 m (k (d + 2) + 2) / B_net

N features of d numbers of b bytes each, on G ranks; P: FLOP/s of a rank, of which k-means reaches the share eta;
B_feat: what a rank reads its features with; B_net: what sums, squares and counts travel with, once an iteration, by a
ring all-reduce, in fp64 because they are exact. m: clusterings that go on together, each of N / m features into k
clusters, as in DeeperCluster. T_update, bytes through a rank's own memory: each feature joins its cluster's sum, N d
(b + 16); on a CPU N d (b + 56), as it is written in fp64, rounded to a grid in two passes and read again, and N k 8 of
scores that are written before they are compared. (The engine adds up only what moved; this is what all of it takes.)

Times are seconds, rates are a second. `python benchmarks/kmeans_cost.py` compares with measurements and prints the
table of docs/kmeans.md.
"""

from dataclasses import dataclass

from launcher.spec.schema import ClusterConfig

FP64 = 8
UPDATE_BYTES = {True: 2 * FP64, False: 7 * FP64}  # fused or not: of a number that joins a sum, beside reading it
SCORE_BYTES = 8  # a score in fp32, written and read back
EFFICIENCY = 0.6  # of a GPU's peak, fused; assumed, to be replaced by the measurement in docs/benchmarks.md
GB, TERA = 1e9, 1e12


@dataclass(frozen=True)
class Problem:
    """n features over all ranks, of d numbers of feature_bytes each; k clusters, in each of m clusterings of n / m.
    Sums travel in numbers of sum_bytes."""

    n: int
    k: int
    d: int
    m: int = 1
    feature_bytes: int = 4
    sum_bytes: int = FP64

    @property
    def flop(self) -> float:
        """Of an iteration, on all ranks together: a multiply-add is 2."""
        return 2.0 * self.n * self.k * self.d

    @property
    def reduced_bytes(self) -> float:
        """Sums, squares and counts of all clusters, how many features moved, and how many pairs were compared."""
        return float(self.sum_bytes * self.m * (self.k * (self.d + 2) + 2))


@dataclass(frozen=True)
class Machine:
    """ranks: of the job. Of one rank: flops (peak), efficiency (share of it), feature_bytes_s (reading features) and
    memory_bytes_s (its own memory). network_bytes_s: of the all-reduce; None: it costs nothing, as within a node.
    fused: scores never leave the registers, as in a GPU kernel."""

    ranks: int
    flops: float
    feature_bytes_s: float
    memory_bytes_s: float
    network_bytes_s: float | None = None
    efficiency: float = EFFICIENCY
    fused: bool = True


@dataclass(frozen=True)
class IterationCost:
    """Of one rank: operations, seconds by part, and what it sends."""

    flop: float
    arithmetic: float
    reading: float
    update: float
    sent_bytes: float
    network: float

    @property
    def seconds(self) -> float:
        """Reading hides behind arithmetic, or the other way round."""
        return max(self.arithmetic, self.reading) + self.update + self.network


def iteration(problem: Problem, machine: Machine) -> IterationCost:
    """The model of the module's docstring."""
    ranks, numbers = machine.ranks, problem.n * problem.d / machine.ranks
    flop = problem.flop / ranks
    moved = numbers * (problem.feature_bytes + UPDATE_BYTES[machine.fused])
    if not machine.fused:
        moved += SCORE_BYTES * problem.n * problem.k / ranks
    sent = 2 * (ranks - 1) / ranks * problem.reduced_bytes
    return IterationCost(
        flop=flop,
        arithmetic=flop / (machine.efficiency * machine.flops),
        reading=numbers * problem.feature_bytes / machine.feature_bytes_s,
        update=moved / machine.memory_bytes_s,
        sent_bytes=sent,
        network=sent / machine.network_bytes_s if machine.network_bytes_s else 0.0,
    )


def machine(cluster: ClusterConfig, nodes: int, tasks_per_node: int, problem: Problem, *, bf16: bool) -> Machine:
    """The ranks of a job on `cluster`. Features lie in the GPUs' memory where they take no more than half of it, else
    in the hosts'. bf16: the products are bf16's, else fp32's."""
    ranks = nodes * tasks_per_node
    gpus, share = bool(cluster.gpus_per_node), 1 if cluster.gpus_per_node else tasks_per_node
    fits = 2 * problem.n * problem.d * problem.feature_bytes / ranks <= cluster.gpu_mem_gb * GB
    fast = cluster.gpu_tflops if bf16 and cluster.bf16 else cluster.gpu_fp32_tflops
    memory = cluster.gpu_mem_gb_s * GB / share
    return Machine(
        ranks=ranks,
        flops=fast * TERA / share,
        feature_bytes_s=memory if fits or not gpus else cluster.host_gb_s * GB,
        memory_bytes_s=memory,
        network_bytes_s=cluster.network_gb_s * GB if nodes > 1 else None,
        efficiency=EFFICIENCY if gpus else cluster.efficiency,
        fused=gpus,
    )
