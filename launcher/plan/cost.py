"""What a run costs: memory, disk, time, and how often to save. Pure arithmetic on a method's `Sizes` and a cluster's
rates. GB are 1e9 bytes, times are seconds."""

import math
from dataclasses import dataclass

from launcher.plan.kmeans_cost import EFFICIENCY, Problem, iteration, machine
from launcher.spec.contract import Layout, Rate, Rounds, Sizes
from launcher.spec.schema import ClusterConfig

FP32 = 4  # bytes
GB = 1e9
CONTEXT_GB = 0.5  # of GPU memory that CUDA takes before the first tensor (assumed)
# Of the activations, beside them: cuDNN's workspaces, what the caching allocator cannot use again, gradients on their
# way, buffers of NCCL. Calibrated: the papers' peaks come out (thesis, Tables 4.4 and 5.14; docs/plans.md).
WORKSPACE = 0.45
RANK_GB, LOADER_GB = 3.0, 0.5  # of host memory: a process with PyTorch and CUDA, a data-loader worker (assumed)
SAVE_SHARE = 0.1  # of the time, at most
LONGEST_INTERVAL = 3600.0  # between two saves, however seldom a cluster fails
START_SLACK = 30.0  # until a signalled job begins to save: Slurm looks now and then, a step or a chunk ends first
SHORTEST_SIGNAL = 60  # Slurm may be this late


@dataclass(frozen=True)
class MemoryCost:
    """GB on one GPU, by part."""

    weights: float
    gradients: float
    optimiser: float
    held: float  # by each rank beside all that: a bank, a frozen network
    copies: float  # of the weights in bf16 or fp16, which autocast keeps until the backward pass
    activations: float
    workspace: float
    context: float

    @property
    def total(self) -> float:
        return sum(vars(self).values())


@dataclass(frozen=True)
class HostMemory:
    """GB on one node, by part."""

    processes: float
    features: float

    @property
    def total(self) -> float:
        return self.processes + self.features


def memory(sizes: Sizes, layout: Layout, precision: str, *, gpu: bool = True) -> MemoryCost:
    """fp32 weights, gradients and optimiser slots, with the weights what follows and what is remembered; activations of
    one forward pass, halved under bf16 or fp16 but for what autocast leaves in fp32. The buckets in which gradients
    travel are the gradients themselves. gpu: with what a GPU needs beside tensors."""
    held = (sizes.parameters + sizes.hosted_parameters) * FP32 / GB
    world = layout.groups * layout.group_size // layout.groups_per_rank
    following = (sizes.following_parameters + sizes.remembered / world) * FP32 / GB
    half = precision != "fp32"
    activations = layout.per_gpu_batch * (sizes.activations / (2 if half else 1) + sizes.unhalved) / GB
    return MemoryCost(
        weights=held + following,
        gradients=held,
        optimiser=held * sizes.optimiser_slots,
        held=sizes.held / GB,
        copies=held / 2 if half else 0.0,
        activations=activations,
        workspace=WORKSPACE * activations if gpu else 0.0,
        context=CONTEXT_GB if gpu else 0.0,
    )


def host_memory(sizes: Sizes, images: int, nodes: int, tasks_per_node: int, workers: int) -> HostMemory:
    """The ranks of a node with their data-loader workers, and the node's share of the features of all images."""
    processes = tasks_per_node * (RANK_GB + workers * LOADER_GB)
    features = images / nodes * sizes.rounds.host_bytes / GB if sizes.rounds else 0.0
    return HostMemory(processes, features)


def checkpoint_gb(sizes: Sizes) -> tuple[float, float]:
    """GB of one checkpoint: (what every rank shares, what ranks hold parts of). Weights and optimiser slots."""
    scalars = 1 + sizes.optimiser_slots
    shared = sizes.parameters * scalars + sizes.following_parameters
    return shared * FP32 / GB, (sizes.sharded_parameters * scalars + sizes.remembered) * FP32 / GB


def peak_tflops(cluster: ClusterConfig, precision: str, tasks_per_node: int) -> float:
    """Peak of what one rank computes on: a GPU, or its share of a machine's CPUs."""
    peak = cluster.gpu_tflops
    if precision == "fp32" or (precision == "bf16" and not cluster.bf16):
        peak = cluster.gpu_fp32_tflops
    return peak if cluster.gpus_per_node else peak / tasks_per_node


def measured_efficiency(rate: Rate, sizes: Sizes) -> float:
    """Share of its peak that a device of `rate` reached on the network of `sizes`."""
    return rate.images_per_s * sizes.flops_per_image / (rate.tflops * 1e12)


def step_seconds(sizes: Sizes, images: float, tflops: float) -> float:
    """One optimiser step of a rank that sees `images` images and computes at `tflops`."""
    return images * sizes.flops_per_image / (tflops * 1e12)


def all_reduce_seconds(sizes: Sizes, layout: Layout, nodes: int, tasks_per_node: int, cluster: ClusterConfig) -> float:
    """Ring all-reduces of a step's gradients, 2 (n-1)/n bytes each over the network of n nodes; inside a node free.

    First what all ranks share, then, where a group spans several nodes, what the ranks of a group share.
    """
    group_nodes = layout.group_size / tasks_per_node
    seconds = _ring(sizes.parameters, nodes, cluster)
    return seconds + (_ring(sizes.hosted_parameters, group_nodes, cluster) if group_nodes > 1 else 0.0)


def _ring(parameters: float, nodes: float, cluster: ClusterConfig) -> float:
    return 2 * (nodes - 1) / nodes * parameters * FP32 / (cluster.network_gb_s * GB)


def features_seconds(rounds: Rounds, images: int, world_size: int, tflops: float) -> float:
    """Features of all images, at `tflops` a rank."""
    return images / world_size * rounds.forward_flops / (tflops * 1e12)


def kmeans_seconds(
    rounds: Rounds, images: int, nodes: int, tasks_per_node: int, cluster: ClusterConfig
) -> tuple[float, float]:
    """(seconds, GB that a rank sends) of the clusterings of one round, in fp32; see kmeans_cost.py."""
    seconds = sent = 0.0
    for wanted in rounds.clusterings:
        problem = Problem(images, wanted.k, wanted.d, wanted.m)
        each = iteration(problem, machine(cluster, nodes, tasks_per_node, problem, bf16=False))
        seconds += wanted.iterations * each.seconds
        sent += wanted.iterations * each.sent_bytes
    return seconds, sent / GB


def labels_seconds(rounds: Rounds, images: int, nodes: int, tasks_per_node: int, cluster: ClusterConfig) -> float:
    """Labels of one round that are not k-means': fp32 operations at the share of the peak that k-means reaches, and
    beside them what moves through the memory of a rank."""
    tflops = kmeans_share(cluster) * peak_tflops(cluster, "fp32", tasks_per_node)
    memory_gb_s = cluster.gpu_mem_gb_s / (1 if cluster.gpus_per_node else tasks_per_node)
    each = rounds.fp32_flops / (tflops * 1e12) + rounds.moved_bytes / (memory_gb_s * GB)
    return images / (nodes * tasks_per_node) * each


def kmeans_share(cluster: ClusterConfig) -> float:
    """Of the fp32 peak."""
    return EFFICIENCY if cluster.gpus_per_node else cluster.efficiency


def save_interval(save: float, nodes: int, cluster: ClusterConfig) -> tuple[float, float]:
    """(seconds between saves, mean seconds between interruptions of the whole job).

    Young 1974, Daly 2006: sqrt(2 x save x MTBF) loses least to saving and to repeating together. Bounded: saving takes
    a tenth of the time at most, and an hour's work is the most that is at stake.
    """
    rate = cluster.interruptions_per_node_day * nodes
    mtbf = 86_400 / rate if rate else math.inf
    shortest = save / SAVE_SHARE
    return max(shortest, min(math.sqrt(2 * save * mtbf), LONGEST_INTERVAL)), mtbf


def signal_delay(save: float, timeout_min: int) -> int:
    """Whole seconds before the time limit at which the ranks are told: three saves and the start, and less than half
    the limit."""
    wanted = max(SHORTEST_SIGNAL, math.ceil(3 * save + START_SLACK))
    return max(1, min(wanted, 30 * timeout_min - 1, 65_535))
