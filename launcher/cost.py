"""What a run costs: memory, disk, time. Pure arithmetic on a method's `Sizes` and a cluster's rates."""

from dataclasses import dataclass

from launcher.registry import Layout, Sizes
from launcher.spec import ClusterConfig

FP32 = 4  # bytes
GB = 1e9


@dataclass(frozen=True)
class Memory:
    """GB on one GPU, by part."""

    weights: float
    gradients: float
    optimiser: float
    activations: float

    @property
    def total(self) -> float:
        return self.weights + self.gradients + self.optimiser + self.activations


def memory(sizes: Sizes, layout: Layout, precision: str) -> Memory:
    """fp32 weights, gradients and optimiser slots; activations of one forward pass, halved under bf16 or fp16."""
    held = (sizes.parameters + sizes.hosted_parameters) * FP32 / GB
    activations = layout.per_gpu_batch * sizes.activations / GB
    if precision != "fp32":
        activations /= 2
    return Memory(held, held, held * sizes.optimiser_slots, activations)


def checkpoint_gb(sizes: Sizes) -> tuple[float, float]:
    """GB of one checkpoint: (what every rank shares, what is sharded over groups). Weights and optimiser slots."""
    scalars = 1 + sizes.optimiser_slots
    return sizes.parameters * scalars * FP32 / GB, sizes.sharded_parameters * scalars * FP32 / GB


def step_seconds(sizes: Sizes, images: int, cluster: ClusterConfig, precision: str) -> float:
    """Seconds of one optimiser step on a GPU that sees `images` images: arithmetic at the cluster's efficiency."""
    peak = cluster.gpu_fp32_tflops if precision == "fp32" else cluster.gpu_tflops
    return images * sizes.flops_per_image / (peak * 1e12 * cluster.efficiency)


def all_reduce_seconds(sizes: Sizes, world_size: int, cluster: ClusterConfig) -> float:
    """Ring all-reduce of the gradients that all ranks share: 2 (G-1)/G bytes over the node's network."""
    if world_size == 1:
        return 0.0
    return 2 * (world_size - 1) / world_size * sizes.parameters * FP32 / (cluster.network_gb_s * GB)
