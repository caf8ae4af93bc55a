"""A method as the launcher knows it, from what the method says of itself: its outline. No torch.

    METHOD = method(
        name="vicreg", summary="...", config=VICRegConfig, recipes=(paper, demo),
        trainer="vicreg.trainer:VICReg", outline=outline,
    )

Ranges of fields, how a batch lies on ranks, and what memory, disk and time a plan reckons with follow from that; the
trainer (`engine/trainer.py`) builds its networks from the same heads.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from launcher.spec.contract import Layout, Method, Recipe, Sizes
from launcher.spec.fields import refuse
from launcher.spec.schema import TrainConfig
from methods.augment.patches import PatchesConfig, check_patches, patches_of
from methods.augment.spec import CHANNELS, ViewsConfig, check_views, views_of
from methods.backbones.spec import BACKBONES
from methods.data.spec import COLUMNS
from methods.parts.layout import check_statistics, check_training, in_one_pass, in_passes
from methods.parts.recipes import in_seconds
from methods.parts.shapes import Head

SLOTS = {"adamw": 2}  # scalars that an optimiser keeps for each that it trains; a momentum is one


@dataclass(frozen=True)
class Follower:
    """A network without gradients that follows the one that trains: a teacher, a target, a momentum encoder.

    heads: names of those that it has, too. views: how many of `image_size` it sees of an image.
    """

    name: str  # in a sentence
    heads: tuple[str, ...]
    views: int


@dataclass(frozen=True)
class Outline:
    """What a method puts on a backbone, and where images meet.

    heads: by the names that they have in the network. couples: where images meet beyond the mean of the loss, as a
    reason for which a global batch is one pass ("the transport is over its images"); "" where they meet in batch
    statistics alone. across_ranks: what the ranks have in common, in a sentence. views: (how many, pixels a side) that
    the network gets of an image; None: the crops of the config, or the one image. follower: see there. frozen: the
    backbone of a second network that sees each image once and stays as it is; "" for none. slots: scalars that the
    optimiser keeps for each that it trains; None: as the one that `config.optimizer` names.

    What is kept beside networks, in fp32 scalars. remembered: of earlier batches, over all ranks in shares, by a name
    for sentences ("queue"). replicated: the same on every rank. banked: for each image of the training data, over all
    ranks. target_scalars: for each image of a step, beside the scores. held: bytes of anything else on each rank.

    recompute: blocks are computed again in the backward pass. until: {field of the config, a number of epochs: what is
    so until then ("the queue is empty")}; a plan says where that is all of a training.
    """

    heads: Mapping[str, Head]
    _: KW_ONLY
    couples: str = ""
    across_ranks: str = "ranks share the mean of their gradients and, where it says so, batch statistics"
    views: tuple[tuple[int, int], ...] | None = None
    follower: Follower | None = None
    frozen: str = ""
    slots: int | None = None
    remembered: Mapping[str, int] = field(default_factory=dict)
    replicated: Mapping[str, int] = field(default_factory=dict)
    banked: float = 0
    target_scalars: float = 0
    held: float = 0
    recompute: bool = False
    until: Mapping[str, str] = field(default_factory=dict)

    @property
    def normalised(self) -> bool:
        """Whether images meet in batch statistics of a head."""
        return any(head.normalised for head in self.heads.values())

    def views_of(self, config: TrainConfig) -> tuple[tuple[int, int], ...]:
        """(how many, pixels a side) of what the network gets of an image."""
        return self.views or (patches_of(config) if isinstance(config, PatchesConfig) else views_of(config))


@dataclass(frozen=True, kw_only=True)
class Outlined(Method):
    """A method that is known by its outline."""

    outline: Callable[[Any], Outline]


def method(
    *,
    config: type[TrainConfig],
    recipes: Iterable[Callable[[], Recipe]],
    outline: Callable[[Any], Outline],
    check: Callable[[Any, int | None], None] = lambda config, images: None,
    layout: Callable[[Any, int], Layout] | None = None,
    advice: Callable[[Any, int, Layout], Layout] = lambda config, world_size, layout: layout,
    extra: Callable[[Any, int, Sizes], Sizes] = lambda config, world_size, sizes: sizes,
    columns: Collection[str] = (),
    **said: str,
) -> Outlined:
    """The METHOD of a spec.

    recipes: functions, whose names they get; where there is no `tiny` it is `demo` in small. check(config, images):
    what fields say together, for `images` of training data or None; raises InputError. layout(config, world_size):
    where it does not follow from what `couples`; raises InputError with the worlds that fit. advice(config, world_size,
    layout): the layout, with what is to be said of a legal one that wastes. extra(config, world_size, sizes): the
    sizes, with what no outline has. columns: what each batch brings beside its images, of
    COLUMNS; data without it are refused. said: name, summary and trainer, as `Method` has them. Raises ValueError for
    another column.
    """
    strange = [name for name in columns if name not in COLUMNS]
    if strange:
        raise ValueError(f"columns={strange[0]!r}: there is no such column; choose from {', '.join(COLUMNS)}")
    named = {recipe.__name__: recipe for recipe in recipes}
    if "tiny" not in named and "demo" in named:
        named["tiny"] = lambda: in_seconds(named["demo"]())

    def validate(given: TrainConfig, images: int | None) -> None:
        _check(given, images)
        made = outline(given)
        if made.normalised:
            check_statistics(given)
        if made.recompute and not BACKBONES[given.backbone].recomputed:
            able = ", ".join(name for name, size in BACKBONES.items() if size.recomputed)
            reason = f"{given.backbone} has no residual blocks to compute again"
            refuse(given, "checkpoint_activations", reason, f"set it to false, or use {able}")
        if getattr(given, "zero_init_residual", False) and not BACKBONES[given.backbone].last_scales:
            reason = f"no residual block of {given.backbone} ends with batch normalisation, to begin at 0"
            refuse(given, "zero_init_residual", reason, "set it to false")
        check(given, images)

    def laid_out(given: TrainConfig, world_size: int) -> Layout:
        made = outline(given)
        found = layout(given, world_size) if layout else _layout(given, made, world_size)
        found = advice(given, world_size, found)
        said = [found.waste] if found.waste else []
        return replace(found, waste="; ".join(said + _never(given, made)) or None)

    def sized(given: TrainConfig, world_size: int) -> Sizes:
        return extra(given, world_size, _sizes(given, outline(given)))

    made = {"recipes": named, "validate": validate, "layout": laid_out, "sizes": sized}
    return Outlined(config=config, outline=outline, columns=tuple(columns), **made, **said)


def _check(config: TrainConfig, images: int | None) -> None:
    """Every field by itself, and what those of its views say together."""
    match config:
        case ViewsConfig():
            check_views(config, images)
        case PatchesConfig():
            check_patches(config, images)
        case _:
            check_training(config, images)


def _never(config: TrainConfig, made: Outline) -> list[str]:
    """What a training is too short for."""
    until = {"warmup_epochs": "the learning rate rises", **made.until}
    return [
        f"{so} for the whole training, method.{name}={getattr(config, name):g} of method.epochs={config.epochs}"
        for name, so in until.items()
        if getattr(config, name) >= config.epochs
    ]


def _layout(config: TrainConfig, made: Outline, world_size: int) -> Layout:
    if not made.couples:
        inputs = sum(number for number, _ in made.views_of(config))
        return in_passes(config, world_size, made.across_ranks, inputs)
    normalised = BACKBONES[config.backbone].batch_norm or made.normalised
    in_shares = {**made.remembered, "bank": made.banked}
    memory = " and its ".join(name for name, scalars in in_shares.items() if scalars)
    return in_one_pass(config, world_size, made.across_ranks, made.couples, memory=memory, batch_norm=normalised)


def _sizes(config: TrainConfig, made: Outline) -> Sizes:
    backbone, heads, follower = BACKBONES[config.backbone], made.heads, made.follower
    views = made.views_of(config)
    count = sum(number for number, _ in views)
    met = [(1 if head.once else count, head) for head in heads.values()]
    waiting = [(n, *backbone.kept_at(size, recompute=made.recompute)) for n, size in views]
    halved, unhalved = sum(n * each for n, each, _ in waiting), sum(n * each for n, _, each in waiting)
    # Crops, also those that the follower alone sees, and patches are fp32 on the device; one image is bytes.
    crops = views_of(config) if isinstance(config, ViewsConfig) else views if isinstance(config, PatchesConfig) else ()
    pixels = sum(number * CHANNELS * size**2 for number, size in crops)
    body, head = sum(n * backbone.macs_at(size) for n, size in views), sum(n * each.macs for n, each in met)
    passes = 4 if made.recompute else 3  # forward, backward twice as much, and forward again
    flops = 2 * (passes * body + 3 * head)
    following, held = 0, made.held
    if follower:
        following = backbone.parameters + sum(heads[name].parameters for name in follower.heads)
        seen = backbone.macs_at(config.image_size) + sum(heads[name].macs for name in follower.heads)
        flops += 2 * follower.views * seen
    if made.frozen:
        flops += 2 * BACKBONES[made.frozen].macs_at(config.image_size)
        held += 4 * BACKBONES[made.frozen].parameters
    # Scores, their logarithms and the gradients of both.
    scores = 4 * sum(n * each.scores for n, each in met) + made.target_scalars
    slots = made.slots or SLOTS.get(getattr(config, "optimizer", ""), 1)
    remembered = {name: scalars for name, scalars in {**made.remembered, **made.replicated}.items() if scalars}
    slot = "its momentum" if slots == 1 else f"what {getattr(config, 'optimizer', 'the optimiser')} keeps of it"
    kept = [follower.name] if follower else []
    kept += [f"the {name}" for name in (*remembered, *["bank"] * bool(made.banked))]
    *first, last = ["the network", slot, *kept]
    return Sizes(
        parameters=backbone.parameters + sum(each.parameters for each in heads.values()),
        optimiser_slots=slots,
        flops_per_image=flops,
        activations=4 * (halved + sum(n * each.kept for n, each in met)),
        why={"disk": f"{', '.join(first)} and {last}"},
        following_parameters=following + sum(made.replicated.values()),
        remembered=sum(made.remembered.values()),
        unhalved=4 * (unhalved + pixels + scores),
        banked=made.banked,
        held=held,
    )
