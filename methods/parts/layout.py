"""How a global batch and its groups of batch statistics lie on a world; shared by every method's spec. No torch."""

import math
from collections.abc import Callable, Sequence

from launcher.errors import InputError, unknown
from launcher.spec.schema import TrainConfig
from methods.backbones.spec import BACKBONES

POSITIVE = ("image_size", "epochs", "global_batch", "lr", "log_every", "keep_checkpoints", "knn_neighbours")
NOT_NEGATIVE = (
    "batch_norm_group", "warmup_epochs", "warmup_lr", "final_lr", "weight_decay", "workers", "checkpoint_every",
    "eval_every",
)  # fmt: skip
# Of a method's memory in a checkpoint, so that a run may go on with another number of ranks: as many as the largest
# world has, but of no fewer images of a global batch.
PARTS, IMAGES_A_PART = 512, 4
CHOICES = {
    "schedule": ("constant", "cosine"),
    "precision": ("bf16", "fp16", "fp32"),
    "on_collapse": ("notice", "stop"),
}


def check_training(config: TrainConfig, images: int | None) -> None:
    """Validate the fields that every method has. Raises InputError naming the first that cannot work.

    `images`: the size of the training data, None while it is not known.
    """
    if config.backbone not in BACKBONES:
        unknown("method.backbone", config.backbone, BACKBONES)
    for field in POSITIVE:
        if not 0 < getattr(config, field) < math.inf:
            raise InputError.of(
                f"method.{field}", getattr(config, field), "it must be positive and finite", "give a positive number"
            )
    for field in NOT_NEGATIVE:
        if not 0 <= (getattr(config, field) or 0) < math.inf:
            raise InputError.of(
                f"method.{field}", getattr(config, field), "it is negative or infinite", "give 0 or more"
            )
    for field, known in CHOICES.items():
        if getattr(config, field) not in known:
            raise InputError.of(
                f"method.{field}", getattr(config, field), "no such choice", f"use {' or '.join(known)}"
            )
    for field in ("momentum", "dropout"):
        if not 0 <= getattr(config, field) < 1:
            fix = "give a number from 0 to below 1"
            raise InputError.of(f"method.{field}", getattr(config, field), "out of range", fix)
    check_scale("method.crop_scale", config.crop_scale)
    check_size(config.backbone, "method.image_size", config.image_size)
    if images is not None and config.global_batch > images:
        fix = f"use at most {images}, or more data"
        raise InputError.of("method.global_batch", config.global_batch, f"there are only {images} images", fix)


def check_statistics(config: TrainConfig) -> None:
    """For heads with batch normalisation, which see one value of a channel an image. Raises InputError where statistics
    would be those of a single image."""
    field = "batch_norm_group" if config.batch_norm_group else "global_batch"
    if getattr(config, field) < 2:
        reason = "the head's batch statistics need two images"
        raise InputError.of(f"method.{field}", getattr(config, field), reason, "give 2 or more")


def check_scale(field: str, given: Sequence[float]) -> None:
    """Raises InputError when `given` is no [smallest, largest] share of an image's area."""
    scale = tuple(given)
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
        fix = "give [smallest, largest] with 0 < smallest <= largest <= 1"
        raise InputError.of(field, list(scale), "not a range of area shares", fix)


def check_size(backbone: str, field: str, size: int) -> None:
    """Raises InputError when images or crops of `size` pixels, given in `field`, are too small for the backbone or no
    whole number of its patches."""
    known = BACKBONES[backbone]
    if size < known.smallest:
        raise InputError.of(field, size, f"too small for {backbone}", f"use at least {known.smallest}")
    if known.patch and size % known.patch:
        below = size // known.patch * known.patch
        reason = f"{backbone} takes whole patches of {known.patch} pixels"
        raise InputError.of(field, size, reason, f"use {below} or {below + known.patch}")


def check_world(config: TrainConfig, world_size: int, fits: Callable[[TrainConfig, int], bool], what: str) -> None:
    """Raises InputError with the worlds that fit, unless `fits(config, world_size)`. `what`: must divide by it, too."""
    if fits(config, world_size):
        return
    worlds = [n for n in range(1, config.global_batch + 1) if fits(config, n)]
    reason = f"a global batch of {config.global_batch}{what} do not divide by it"
    fix = f"use {', '.join(map(str, worlds))} ranks" if worlds else "use method.batch_norm_group=0"
    raise InputError.of("nodes x tasks_per_node", world_size, reason, fix)


def memory_parts(global_batch: int) -> int:
    """In how many parts a queue or a cache (`methods.parts.memory`) lies in a checkpoint: a power of two.

    >>> memory_parts(4096), memory_parts(256), memory_parts(10)
    (512, 64, 2)
    """
    parts = math.gcd(global_batch, PARTS)
    while parts > 1 and parts * IMAGES_A_PART > global_batch:
        parts //= 2
    return parts


def batch_norm_fits(config: TrainConfig, per_rank: int, world_size: int) -> bool:
    """Whether `batch_norm_layout` has an answer."""
    try:
        batch_norm_layout(config, per_rank, world_size)
    except InputError:
        return False
    return True


def batch_norm_layout(config: TrainConfig, per_rank: int, world_size: int) -> tuple[int, int, int, str]:
    """Keep the number of images that share batch statistics, whatever the world.

    Returns (images a forward pass, forward passes a step, ranks that share statistics, why). Raises InputError when
    the group of `config.batch_norm_group` images can be laid out on no whole number of passes or ranks.
    """
    group = config.batch_norm_group or config.global_batch
    if per_rank >= group and per_rank % group == 0:
        passes = per_rank // group
        return group, passes, 1, f"batch statistics over {group} images, {passes} x a step"
    if per_rank < group and group % per_rank == 0 and world_size % (group // per_rank) == 0:
        ranks = group // per_rank
        return per_rank, 1, ranks, f"batch statistics over {group} images, synchronised over {ranks} ranks"
    raise InputError.of(
        "method.batch_norm_group",
        config.batch_norm_group,
        f"{per_rank} images a rank are neither a multiple nor a divisor of it",
        "use 0 (the whole global batch) or another number of ranks",
    )
