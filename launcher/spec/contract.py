"""What a kind of work, above all a method of training, tells the launcher about itself, without torch."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, fields, replace
from typing import Any, ClassVar

from launcher.errors import unknown
from launcher.spec.schema import TrainConfig


@dataclass(frozen=True)
class Rate:
    """How fast somebody trained a recipe. The plan scales it by arithmetic: peak of the device, operations an image. So
    it does for variations of the recipe, and for the method's recipes that have none if this is of `paper`."""

    images_per_s: float  # of one GPU, or of one machine without
    tflops: float  # peak of that device in the recipe's precision
    gpu: bool
    source: str


@dataclass(frozen=True)
class Recipe:
    """A published or a miniature setting of one method. `source` says where its numbers come from."""

    method: TrainConfig
    data: Any  # the data config that it trains on unless told otherwise
    images: int  # size of that data, for plans made before the data are at hand
    source: str
    expect: str  # what a reader may expect: hours, accuracy
    rate: Rate | None = None  # where one was published or measured
    here: bool = False  # it runs on the machine at hand unless told otherwise

    def but(self, **given: Any) -> "Recipe":
        """This one with other values `given`: of fields of the recipe, and beside these of its method's config."""
        own = {field.name: given.pop(field.name) for field in fields(self) if field.name in given}
        return replace(self, **{"method": replace(self.method, **given), **own})


@dataclass(frozen=True)
class Layout:
    """How a global batch lies on a world. `why` holds one sentence a number."""

    per_gpu_batch: int  # images a forward pass
    group_size: int  # ranks that share one group
    why: Mapping[str, str]
    _: KW_ONLY
    accumulation: int = 1  # forward passes an optimiser step
    groups: int = 1  # communication groups (DeeperCluster: 4m); 1 where a method has none
    groups_per_rank: int = 1  # groups that one rank hosts
    batch_norm_ranks: int = 1  # ranks that share batch statistics
    waste: str | None = None  # said when the layout is legal but wasteful
    variant: tuple[str, ...] = ()  # the overrides that would mend the waste, with a new identity


@dataclass(frozen=True)
class Clustering:
    """k-means of the features of all images: into k clusters each of m parts, which go on together."""

    k: int
    d: int
    iterations: int
    m: int = 1


@dataclass(frozen=True)
class Rounds:
    """What a method does over all images between epochs: features, then k-means of them, or labels made otherwise."""

    count: int  # in a whole run
    forward_flops: float  # an image, for its feature
    clusterings: tuple[Clustering, ...]  # one after the other
    host_bytes: float  # an image, in host memory until the round ends
    fp32_flops: float = 0.0  # an image, for its labels beside k-means, in fp32 whatever the precision is
    moved_bytes: float = 0.0  # an image, read and written for these


@dataclass(frozen=True)
class Sizes:
    """What the cost models need to know of a network. Counts of fp32 scalars and floating-point operations."""

    parameters: int  # replicated on every rank
    flops_per_image: float  # forward and backward
    activations: float  # bytes an image in fp32, of which bf16 and fp16 take half
    why: Mapping[str, str]
    optimiser_slots: int = 1  # scalars the optimiser keeps for each parameter; one is a momentum
    sharded_parameters: int = 0  # over the whole world, each stored once
    hosted_parameters: int = 0  # of the sharded ones, what one rank holds
    rounds: Rounds | None = None  # of clustering between epochs, where the method has any
    following_parameters: int = 0  # replicated, but without gradients or slots: a teacher, or a momentum encoder
    remembered: int = 0  # of earlier batches, over the whole world: a queue, or a cache of features
    unhalved: float = 0.0  # bytes an image beside the activations, in any precision: pixels, scores, LayerNorm's input
    banked: float = 0.0  # fp32 scalars for each image of the training data, over the whole world
    held: float = 0.0  # bytes on each rank beside all that: a frozen network, say


@dataclass(frozen=True, kw_only=True)
class Work:
    """The launcher's whole view of a kind of work. What is no `Method` trains nothing: it has no checkpoints, and its
    ranks run `entry`."""

    name: str
    summary: str
    config: type
    recipes: Mapping[str, Callable[[], Recipe]]
    validate: Callable[[Any, int | None], None]  # (config, number of images if known); raises InputError
    entry: str = ""  # "package.module:function"
    rounds: Callable[[Any], Rounds] | None = None  # of work that clusters: what, from the config
    columns: tuple[str, ...] = ()  # what its batches bring beside images: label, position, text
    trains: ClassVar[bool] = False

    def recipe(self, name: str) -> Recipe:
        if name not in self.recipes:
            unknown("recipe", name, self.recipes)
        return self.recipes[name]()


@dataclass(frozen=True, kw_only=True)
class Method(Work):
    """A method of training, as `methods.engine.outline.method` makes it. `trainer` is loaded by the worker alone, in a
    job."""

    config: type[TrainConfig]
    trainer: str  # "package.module:Class"
    layout: Callable[[Any, int], Layout]  # (config, world_size); raises InputError with the sizes that work
    sizes: Callable[[Any, int], Sizes]  # (config, world_size)
    trains: ClassVar[bool] = True
