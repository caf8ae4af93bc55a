"""RotNet's tiny recipe with a state so large, and steps so long, that a preemption finds something to spoil."""

from dataclasses import dataclass, replace

from launcher.spec.contract import Layout, Method, Recipe, Sizes
from launcher.spec.fields import ops
from methods.data.spec import PhotosData
from methods.parts.layout import check_training
from methods.rotnet import spec as rotnet

STEPS_AN_EPOCH = 50


@dataclass
class PaddedConfig(rotnet.RotNetConfig):
    """`pad_mb`: of state beside the network (1e6 bytes). `step_seconds`: what a step takes at least.
    `executed`: a file that gets a line for every start and every step."""

    name: str = "padded"
    pad_mb: int = 0
    step_seconds: float = ops(0.0)
    executed: str = ops("")


def bench() -> Recipe:
    """One run of the benchmark; its length is given as method.epochs."""
    given = {**vars(rotnet.tiny().method), "name": "padded", "epochs": 1, "log_every": 50}
    images = STEPS_AN_EPOCH * given["global_batch"]
    return Recipe(PaddedConfig(**given), PhotosData(images=images), images, source="ours", expect="nothing")


def layout(config: PaddedConfig, world_size: int) -> Layout:
    return rotnet.layout(config, world_size)


def sizes(config: PaddedConfig, world_size: int) -> Sizes:
    found = rotnet.sizes(config, world_size)
    pad = config.pad_mb * 250_000 // (1 + found.optimiser_slots)  # it has no momentum
    return replace(found, parameters=found.parameters + pad)


METHOD = Method(
    name="padded",
    summary="for benchmarks/preemption",
    config=PaddedConfig,
    recipes={"bench": bench},
    trainer="padded.trainer:Padded",
    validate=check_training,
    layout=layout,
    sizes=sizes,
)
