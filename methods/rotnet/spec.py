"""RotNet (Gidaris et al., ICLR 2018; thesis 2.2.3): predict by which of 4 angles an image was turned.

sslrun method=rotnet nodes=8 data.path=/data/yfcc100m            # what DeeperCluster starts from (thesis 3.3.1)
sslrun method=rotnet recipe=demo                                 # minutes on 2 CPU cores, embedded photographs
"""

from dataclasses import dataclass

from launcher.spec.contract import Layout, Method, Recipe, Sizes
from launcher.spec.schema import TrainConfig
from methods.backbones.spec import BACKBONES
from methods.parts.layout import batch_norm_layout, check_training, refuse_world, worlds_that_fit
from methods.parts.recipes import in_seconds, on_photos, on_yfcc100m

ROTATIONS = 4


@dataclass
class RotNetConfig(TrainConfig):
    """`global_batch` counts images; each gives four inputs, the same crop at 0, 90, 180 and 270 degrees."""

    name: str = "rotnet"
    backbone: str = "vgg16_bn"


def paper() -> Recipe:
    """VGG-16 on YFCC100M, 62.2 on VOC07 (thesis Table 3.3). Its schedule is not published: DeeperCluster's is used."""
    return on_yfcc100m(
        RotNetConfig,
        epochs=100,
        global_batch=768,  # x 4 angles = the 3072 inputs of DeeperCluster's step
        batch_norm_group=12,  # x 4 angles = 48 inputs a GPU
        precision="bf16",
        source="thesis 3.3.1 for DeeperCluster (optimiser, batch); RotNet's own schedule on YFCC100M is unpublished",
        expect="VOC07 classification 62.2, ImageNet linear 33.0 (thesis Table 3.3)",
    )


def demo() -> Recipe:
    """The demo network on the embedded photographs."""
    return on_photos(
        RotNetConfig,
        source="our own setting on the embedded photographs",
        expect="k-NN above the untrained network, in under 3 minutes on 2 cores",
        backbone="small_vgg",
        epochs=5,
        global_batch=16,  # x 4 angles = the 64 inputs of DeeperCluster's demo
        lr=0.05,
        warmup_epochs=0.05,
    )


def tiny() -> Recipe:
    """Seconds, for tests and drills. It learns nothing."""
    return in_seconds(demo(), dropout=0.1)


def layout(config: RotNetConfig, world_size: int) -> Layout:
    """Data parallel. Raises InputError when the global batch does not divide by the world."""
    worlds = [n for n in range(1, config.global_batch + 1) if config.global_batch % n == 0]
    fits = worlds_that_fit(config, worlds)
    if world_size not in fits:
        reason = f"a global batch of {config.global_batch} does not divide by it, or its batch statistics do not"
        refuse_world(world_size, fits, reason)
    per_rank = config.global_batch // world_size
    micro, accumulation, bn_ranks, bn_why = batch_norm_layout(config, per_rank, world_size)
    why = {
        "groups": "the loss couples no group of ranks",
        "group_size": "the whole world",
        "per_gpu_batch": f"{config.global_batch} / {world_size} ranks = {per_rank} images, each at 4 angles; {bn_why}",
        "accumulation": "samples meet only in batch statistics, whose group is kept, and in the mean of the loss",
    }
    return Layout(micro, world_size, why, accumulation=accumulation, batch_norm_ranks=bn_ranks)


def sizes(config: RotNetConfig, world_size: int) -> Sizes:
    """Scalars of the backbone with the 4-way classifier; four forward passes an image."""
    backbone = BACKBONES[config.backbone]
    halved, unhalved = backbone.kept_at(config.image_size)
    return Sizes(
        parameters=backbone.parameters + ROTATIONS * (backbone.feature_dim + 1),
        flops_per_image=6 * ROTATIONS * backbone.macs_at(config.image_size),
        activations=4 * ROTATIONS * halved,
        why={"disk": "the network and its momentum"},
        unhalved=4 * ROTATIONS * unhalved,
    )


METHOD = Method(
    name="rotnet",
    summary="predict the rotation of an image (Gidaris et al. 2018)",
    config=RotNetConfig,
    recipes={"paper": paper, "demo": demo, "tiny": tiny},
    trainer="methods.rotnet.trainer:RotNet",
    validate=check_training,
    layout=layout,
    sizes=sizes,
)
