"""RotNet's tiny recipe with a state so large, and steps so long, that a preemption finds something to spoil."""

from dataclasses import dataclass, replace

from launcher.spec.contract import Recipe, Sizes
from launcher.spec.fields import ops
from methods.data.sets.photos.spec import PhotosData
from methods.engine.outline import method
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


def pad(config: PaddedConfig, world_size: int, sizes: Sizes) -> Sizes:
    scalars = config.pad_mb * 250_000 // (1 + sizes.optimiser_slots)  # it has no momentum
    return replace(sizes, parameters=sizes.parameters + scalars)


METHOD = method(
    name="padded",
    summary="for benchmarks/preemption",
    config=PaddedConfig,
    recipes=(bench,),
    trainer="padded.trainer:Padded",
    outline=rotnet.outline,
    extra=pad,
)
