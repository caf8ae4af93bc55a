"""How a global batch and its groups of batch statistics lie on a world; shared by every method's spec. No torch."""

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NoReturn

from launcher.errors import InputError, unknown
from launcher.spec.contract import Layout
from launcher.spec.fields import check_ranges, refuse
from launcher.spec.schema import TrainConfig
from methods.backbones.spec import BACKBONES

# Of a method's memory in a checkpoint, so that a run may go on with another number of ranks: as many as the largest
# world has, but of no fewer images of a global batch.
PARTS, IMAGES_A_PART = 512, 4


def check_training(config: TrainConfig, images: int | None) -> None:
    """Validate the range of every field, and what two fields that every method has say together. Raises InputError
    naming the first that cannot work.

    `images`: the size of the training data, None while it is not known.
    """
    if config.backbone not in BACKBONES:
        unknown("method.backbone", config.backbone, BACKBONES)
    check_ranges(config)
    check_scale("method.crop_scale", config.crop_scale)
    check_size(config.backbone, "method.image_size", config.image_size)
    if images is not None and config.global_batch > images:
        refuse(config, "global_batch", f"there are only {images} images", f"use at most {images}, or more data")


def check_statistics(config: TrainConfig) -> None:
    """For heads with batch normalisation, which see one value of a channel an image. Raises InputError where statistics
    would be those of a single image."""
    field = "batch_norm_group" if config.batch_norm_group else "global_batch"
    if getattr(config, field) < 2:
        refuse(config, field, "the head's batch statistics need two images", "give 2 or more")


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


def in_passes(config: TrainConfig, world_size: int, across_ranks: str, inputs: int = 1, *, together: int = 1) -> Layout:
    """Data parallel, where images meet in batch statistics and in the mean of the loss alone: in as many passes as the
    group of batch statistics takes. across_ranks: what ranks have in common, in a sentence. inputs: of the network for
    each image. together: how many neighbours have to be in one pass. Raises InputError with the worlds that fit."""
    worlds = [n for n in range(1, config.global_batch + 1) if config.global_batch % n == 0]
    fits = [n for n in worlds_that_fit(config, worlds) if _images_a_pass(config, n) % together == 0]
    if world_size not in fits:
        reason = f"a global batch of {config.global_batch} does not divide by it, or its batch statistics do not"
        if together > 1:
            reason += f", or a pass would part {together} images that belong together"
        refuse_world(world_size, fits, reason)
    per_rank = config.global_batch // world_size
    micro, accumulation, ranks, shared = batch_norm_layout(config, per_rank, world_size)
    each = f", each giving {inputs} inputs" if inputs > 1 else ""
    why = {
        "groups": across_ranks,
        "per_gpu_batch": f"{config.global_batch} / {world_size} ranks = {per_rank} images{each}; {shared}",
        "accumulation": "samples meet only in batch statistics, whose group is kept, and in the mean of the loss",
    }
    return Layout(micro, world_size, why, accumulation=accumulation, batch_norm_ranks=ranks)


def _images_a_pass(config: TrainConfig, world_size: int) -> int:
    return batch_norm_layout(config, config.global_batch // world_size, world_size)[0]


def in_one_pass(
    config: TrainConfig, world_size: int, across_ranks: str, couples: str, *, memory: str = "", batch_norm: bool = True
) -> Layout:
    """Data parallel, without accumulation, because the loss couples the images of a batch.

    across_ranks, couples: what ranks have in common and how images are coupled, in a sentence. memory: what lies on the
    ranks in equal shares, see `memory_parts`; "" for nothing. batch_norm: images meet in batch statistics, too. Raises
    InputError with the worlds that fit.
    """
    fit = partial(fits_in_one_pass, config, memory=bool(memory), batch_norm=batch_norm)
    if not fit(world_size):
        meets = ["its batch statistics"] * batch_norm + [f"its {memory}"] * bool(memory)
        *first, last = [f"a global batch of {config.global_batch}", *meets]
        what = f"{', '.join(first)} or {last} do" if first else f"{last} does"
        worlds = [n for n in range(1, config.global_batch + 1) if fit(n)]
        refuse_world(world_size, worlds, f"{what} not divide by it")
    per_rank, ranks, shared = config.global_batch // world_size, 1, "no batch statistics"
    if batch_norm:
        _, _, ranks, shared = batch_norm_layout(config, per_rank, world_size)
    why = {
        "groups": across_ranks,
        "per_gpu_batch": f"{config.global_batch} / {world_size} ranks = {per_rank} images; {shared}",
        "accumulation": f"none: {couples}",
    }
    return Layout(per_rank, world_size, why, batch_norm_ranks=ranks)


def fits_in_one_pass(config: TrainConfig, world_size: int, memory: bool, batch_norm: bool = True) -> bool:
    """Whether each rank can have its images in one forward pass. memory: a queue or a cache lies on the ranks in equal
    shares, see `memory_parts`. batch_norm: images meet in batch statistics."""
    per_rank, rest = divmod(config.global_batch, world_size)
    if rest or (memory and memory_parts(config.global_batch) % world_size):
        return False
    if not batch_norm:
        return True
    return batch_norm_fits(config, per_rank, world_size) and batch_norm_layout(config, per_rank, world_size)[1] == 1


def worlds_that_fit(config: TrainConfig, worlds: Iterable[int]) -> list[int]:
    """Those of `worlds`, which divide the global batch, that can keep the groups of batch statistics. Raises InputError
    where none can."""
    found = [n for n in worlds if batch_norm_fits(config, config.global_batch // n, n)]
    if not found:
        batch_norm_layout(config, config.global_batch, 1)  # says what is wrong with the group of batch statistics
    return found


def refuse_world(world_size: int, worlds: Sequence[int], reason: str) -> NoReturn:
    """Raises InputError with the `worlds` that fit."""
    fix = f"use {', '.join(map(str, worlds))} ranks" if worlds else "use method.batch_norm_group=0"
    raise InputError.of("nodes x tasks_per_node", world_size, reason, fix)


def few_images(config: TrainConfig, per_rank: int, published: int) -> tuple[str | None, tuple[str, ...]]:
    """What is said of a step with less than half as many images a GPU as were `published`, and the overrides that would
    mend it: a larger global batch, and lr scaled linearly."""
    if per_rank >= published // 2:
        return None, ()
    factor = published // per_rank
    batch, lr = config.global_batch * factor, f"{config.lr * factor:g}"
    waste = (
        f"{per_rank} images a GPU waste most of it (thesis {published}); the linearly scaled variant is a new run: "
        f"global batch {batch}, lr {lr}"
    )
    return waste, (f"method.global_batch={batch}", f"method.lr={lr}")


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
    reason = f"{per_rank} images a rank are neither a multiple nor a divisor of it"
    refuse(config, "batch_norm_group", reason, "use 0 (the whole global batch) or another number of ranks")
