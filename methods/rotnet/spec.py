"""RotNet (Gidaris et al., ICLR 2018; thesis 2.2.3): predict by which of 4 angles an image was turned.

sslrun method=rotnet nodes=8 data.path=/data/yfcc100m            # what DeeperCluster starts from (thesis 3.3.1)
sslrun method=rotnet recipe=demo                                 # minutes on 2 CPU cores, embedded photographs
"""

from dataclasses import dataclass

from launcher.spec.contract import Recipe
from launcher.spec.schema import TrainConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Outline, method
from methods.parts.recipes import in_seconds, on_photos, on_yfcc100m
from methods.parts.shapes import Classifier

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
        source="ours, chosen on the validation split (docs/demos.md)",
        expect="k-NN at least 5 points over the untrained, adapted network, in under 3 minutes on 2 cores",
        backbone="small_vgg",
        epochs=12,
        global_batch=16,  # x 4 angles = the 64 inputs of DeeperCluster's demo
        lr=0.05,
        warmup_epochs=0.05,
    )


def tiny() -> Recipe:
    """Seconds, for tests and drills. It learns nothing."""
    return in_seconds(demo(), dropout=0.1)


def outline(config: RotNetConfig) -> Outline:
    """A 4-way classifier; four forward passes an image."""
    classifier = Classifier(BACKBONES[config.backbone].feature_dim, ROTATIONS)
    return Outline({"classifier": classifier}, views=((ROTATIONS, config.image_size),))


METHOD = method(
    name="rotnet",
    summary="predict the rotation of an image (Gidaris et al. 2018)",
    config=RotNetConfig,
    recipes=(paper, demo, tiny),
    trainer="methods.rotnet.trainer:RotNet",
    outline=outline,
)
