"""DINO (Caron et al., ICCV 2021; thesis chapter 5): predict what one's own moving average makes of another view.

sslrun method=dino nodes=2 data.path=/data/imagenet                       # 16 GPUs; 76.1 linear (thesis, Table 5.14)
sslrun method=dino recipe=vit_base_8 nodes=16 data.path=/data/imagenet    # 80.1 (thesis, Table 5.2)
sslrun method=dino recipe=demo                                            # minutes on 2 CPU cores
"""

from dataclasses import dataclass, field, replace
from functools import partial

from launcher.spec.contract import Layout, Rate, Recipe
from launcher.spec.fields import at_least, below_one, choice, not_negative, positive, refuse, share
from methods.augment.spec import MultiCropConfig
from methods.backbones.spec import BACKBONES
from methods.engine.outline import Follower, Outline, method
from methods.parts.layout import few_images
from methods.parts.recipes import in_seconds, on_imagenet, on_photos
from methods.parts.shapes import Bottleneck, Head, Perceptron

PUBLISHED = 64  # images a GPU (thesis 5.3.2)
SMALLEST_FP16 = 16  # pixels of a patch (released code)
STAND_IN = "no DINO of ResNet-50 was timed: SwAV's 89 images/s on V100 (thesis 4.4) at 76.3 GFLOP an image"
OPERATIONS = ("centring", "none", "softmax", "sinkhorn")  # on the teacher's output (Table 5.10)
OVER_THE_BATCH = ("softmax", "sinkhorn")  # operations in which the images of a batch meet

_softened = partial(
    not_negative, reason="a softmax has none below 0", fix="give a positive number, or 0 for the argmax"
)


@dataclass
class DINOConfig(MultiCropConfig):
    """The teacher sees the global crops, the student all of them. To switch sharpening off (Figure 5.8), give
    teacher_temperature and warmup_teacher_temperature the value of temperature."""

    name: str = "dino"
    backbone: str = "vit_small_16"
    crop_scale: list[float] = field(default_factory=lambda: [0.32, 1.0])  # s, the best of 5.6.7
    local_scale: list[float] = field(default_factory=lambda: [0.05, 0.32])
    local_crops: int = 10
    augment: str = "byol"
    dropout: float = 0.0
    drop_path: float = below_one(0.1)  # of the student (released code)
    outputs: int = at_least(2, 65_536)  # K (5.6.6)
    hidden: int = at_least(1, 2048)  # width of the head's hidden layers
    head_layers: int = at_least(1, 3)  # linear layers of the head up to the bottleneck
    bottleneck: int = not_negative(256)  # width where the L2 normalisation is; 0: without (Figure 5.9, right)
    activation: str = choice("gelu", "relu")
    head_batch_norm: bool = False
    fixed_length: bool = True  # of the last layer's rows (released code); false: their lengths are trained
    predictor: bool = False  # of the student, on the bottleneck (Table 5.9, row 6); its shape is ours: hidden wide
    objective: str = choice("cross_entropy", "mse")  # Tables 5.9 and 5.11
    temperature: float = positive(0.1, "scores are divided by it")  # tau_s
    teacher_temperature: float = _softened(0.07)  # tau_t; 0: the argmax (Table 5.12)
    warmup_teacher_temperature: float = _softened(0.04)  # at the first step
    teacher_warmup_epochs: float = not_negative(30)
    operation: str = choice(*OPERATIONS)
    centre_momentum: float = below_one(0.9)  # m, Eq. 5.4
    sinkhorn_iterations: int = at_least(1, 3)
    teacher: str = choice("momentum", "last_epoch", "last_step", "copy")  # Figure 5.7, right
    teacher_momentum: float = below_one(0.996)  # lambda, 5.3.1; a cosine to final_teacher_momentum
    final_teacher_momentum: float = share(1.0)
    optimizer: str = choice("adamw", "sgd")  # released code: sgd for ResNet-50
    final_weight_decay: float = not_negative(0.4)  # of a cosine from weight_decay
    # Largest norm of each parameter's gradient (released code); null: any.
    clip: float | None = positive(3.0, "gradients are scaled down to it", "give a positive number, or null for none")
    freeze_epochs: float = not_negative(1.0)  # during which the last layer keeps its first weights (released code)


def paper() -> Recipe:
    """Thesis 5.3.2 and Table 5.14: ViT-S/16 on 16 GPUs x 64 images."""
    return on_imagenet(
        DINOConfig,
        epochs=300,
        global_batch=1024,
        lr=0.002,  # 0.0005 x 1024 / 256
        warmup_lr=0.0,
        final_lr=1e-6,
        warmup_epochs=10,
        schedule="cosine",
        weight_decay=0.04,
        precision="fp16",
        fixed_length=False,
        source="thesis 5.3.1, 5.3.2, 5.6.4, 5.6.6; s: 5.6.7; lr at both ends, clipping, dropped paths, frozen and free "
        "last layer, precision: released code",
        expect="ImageNet linear 76.1, k-NN 72.8 after 300 epochs (thesis, Tables 5.9 and 5.14)",
        rate=Rate(92, tflops=125, gpu=True, source="thesis, Table 5.14: 300 epochs in 72.6 h on 16 GPUs, V100 assumed"),
    )


def vit_base_8() -> Recipe:
    """Thesis, Table 5.2: the largest model. What its schedule was, the thesis does not say: that of ViT-S/16.

    method.precision=bf16 is several times as fast where GPUs have it, with fp32's range; nobody published it.
    """
    return paper().but(
        backbone="vit_base_8",
        fixed_length=True,
        precision="fp32",
        source="thesis, Table 5.2, with the numbers of ViT-S/16 (5.3.2); rows of fixed length, no fp16 with patches "
        "below 16 pixels: released code",
        expect="ImageNet linear 80.1, k-NN 77.4 (thesis, Table 5.2), after an unpublished number of epochs",
        rate=None,
    )


def resnet50() -> Recipe:
    """What the released code advises for ResNet-50: 8 GPUs x 64 images, SGD, the crops of SwAV."""
    return paper().but(
        backbone="resnet50",
        drop_path=0.0,
        crop_scale=[0.14, 1.0],
        local_scale=[0.05, 0.14],
        local_crops=8,
        epochs=100,
        global_batch=512,
        optimizer="sgd",
        lr=0.06,  # 0.03 x 512 / 256
        weight_decay=1e-4,
        final_weight_decay=1e-4,
        teacher_temperature=0.04,
        teacher_warmup_epochs=0,
        fixed_length=True,
        source="released code: its command for ResNet-50 and its defaults; the thesis gives no numbers of its own",
        expect="none is published for 100 epochs; 75.3 linear (thesis, Table 5.2) after 800 at 4096 (SMoG, Table 1)",
        # ViT-S/16 reached more of the peak than a ResNet-50 does.
        rate=Rate(66, tflops=125, gpu=True, source=f"{STAND_IN}; 103 a DINO image of ResNet-50"),
    )


def demo() -> Recipe:
    """A small network on the embedded photographs."""
    return on_photos(
        DINOConfig,
        source="ours, chosen on the validation split (docs/demos.md); all else is the best of ten "
        "tried on seed 7 and test patches",
        expect="k-NN at least 5 points over the untrained, adapted network, in under 3 minutes on 2 cores",
        backbone="small_resnet",
        local_crops=2,
        local_size=16,
        local_scale=[0.1, 0.3],
        augment="gentle",
        drop_path=0.0,
        outputs=64,
        hidden=256,
        bottleneck=64,
        teacher_temperature=0.02,
        warmup_teacher_temperature=0.02,
        teacher_warmup_epochs=0,
        teacher_momentum=0.99,
        freeze_epochs=0.5,
        epochs=8,
        global_batch=64,
        lr=0.003,
        final_lr=1e-5,
        warmup_epochs=1,
        weight_decay=0.04,
    )


def tiny() -> Recipe:
    """Seconds: all of the method, for tests and drills. It learns nothing."""
    less = {"outputs": 24, "hidden": 16, "bottleneck": 8}
    more = {"drop_path": 0.1, "predictor": True, "head_batch_norm": True}
    heat = {"warmup_teacher_temperature": 0.04, "teacher_temperature": 0.07, "teacher_warmup_epochs": 1}
    return in_seconds(demo(), backbone="small_vit", **less, **more, **heat, augment="simclr", lr=0.001)


def outline(config: DINOConfig) -> Outline:
    """The student's head and its predictor; a teacher that has the first."""
    end, inside = config.bottleneck or config.outputs, [config.hidden] * (config.head_layers - 1)
    layers = partial(Perceptron, batch_norm=config.head_batch_norm, activation=config.activation)
    body = layers((BACKBONES[config.backbone].feature_dim, *inside, end))
    heads: dict[str, Head] = {"head": Bottleneck(body, config.outputs if config.bottleneck else 0, config.fixed_length)}
    if config.predictor:
        heads["predictor"] = layers((end, config.hidden, end))
    until = {"freeze_epochs": "the last layer keeps its first weights"}
    moves = config.warmup_teacher_temperature != config.teacher_temperature
    if moves and config.objective == "cross_entropy":
        until["teacher_warmup_epochs"] = "the teacher's temperature moves"
    over = "the operation is over the images" if config.operation in OVER_THE_BATCH else "the centre is"
    return Outline(
        heads,
        couples=f"{over} of a whole batch, taken once a step",
        across_ranks="the teacher's outputs are averaged over all ranks (Eq. 5.4)",
        follower=Follower("the teacher", ("head",), config.global_crops),
        target_scalars=3 * config.global_crops * config.outputs,  # the teacher's scores, targets, and what meets them
        until=until,
    )


def check(config: DINOConfig, images: int | None) -> None:
    if config.global_crops + config.local_crops < 2:
        reason = "the student predicts the teacher's output for another view"
        refuse(config, "global_crops", reason, "give 2 or more")
    if config.drop_path and BACKBONES[config.backbone].batch_norm:
        refuse(config, "drop_path", f"{config.backbone} has no paths to drop", "use 0")
    if config.predictor and not config.bottleneck:
        refuse(config, "bottleneck", "the predictor sits on it", "use a bottleneck such as 256")
    if config.operation not in OVER_THE_BATCH:
        return
    for name in ("teacher_temperature", "warmup_teacher_temperature"):
        if not getattr(config, name):
            refuse(config, name, f"method.operation={config.operation} has no argmax", "give a positive number")
    if config.objective == "mse":
        reason = "the square error takes no probabilities (thesis 5.6.1)"
        refuse(config, "operation", reason, "use centring or none")


def advice(config: DINOConfig, world_size: int, layout: Layout) -> Layout:
    waste, variant = few_images(config, layout.per_gpu_batch, PUBLISHED if config.backbone == "vit_small_16" else 0)
    backbone = BACKBONES[config.backbone]
    if config.precision == "fp16" and backbone.class_token and backbone.patch < SMALLEST_FP16:
        unstable = (
            f"fp16 with patches of {backbone.patch} pixels is what the released code advises against, as unstable; "
            "another precision is a new run"
        )
        waste = f"{unstable}; {waste}" if waste else unstable
        variant = ("method.precision=fp32", *variant)
    if config.operation in OVER_THE_BATCH and config.global_batch < config.outputs:
        shared = (
            f"a batch of {config.global_batch} images is shared out alike among {config.outputs} outputs, which are "
            "more: shares mean little then (thesis 4.2.3)"
        )
        waste = f"{shared}; {waste}" if waste else shared
    return replace(layout, waste=waste, variant=variant)


METHOD = method(
    name="dino",
    summary="predict what a teacher, one's own moving average, makes of another view (Caron et al. 2021)",
    config=DINOConfig,
    recipes=(paper, vit_base_8, resnet50, demo, tiny),
    trainer="methods.dino.trainer:DINO",
    outline=outline,
    check=check,
    advice=advice,
)
