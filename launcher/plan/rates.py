"""Which share of its peak a device reaches in training: measured of the recipe or of the method's `paper`, or assumed,
and then what is known of such networks. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from launcher.errors import InputError
from launcher.plan import cost
from launcher.spec import registry
from launcher.spec.contract import Rate, Recipe, Work
from launcher.spec.runspec import RunSpec
from launcher.spec.schema import TrainConfig


@dataclass(frozen=True)
class Reached:
    """share: of the peak, and in `source` what it rests on. span: lowest and highest share that published rates of such
    networks reach, where it is assumed and any are published."""

    share: float
    source: str
    assumed: bool = False
    span: tuple[float, float] | None = None


def reached(spec: RunSpec, recipe: Recipe) -> Reached:
    """What the recipe was measured to reach, or else the method's `paper`; and where neither was, on such a device and
    in half precision or not as here, what the cluster assumes.

    The share is what variations have in common: images/s change with the operations of another backbone or other crops.
    """
    cluster, config = spec.cluster, spec.method
    method = registry.method(config.name)
    paper = method.recipes.get("paper")
    for name, known in ((spec.recipe, recipe), ("paper", paper and paper())):
        rate = known and known.rate
        if not rate or not _such_a_device(rate, known.method, spec):
            continue
        share = _share(rate, method, known.method)
        if known is recipe and known.method.backbone == config.backbone:
            source = f"scaled from {rate.images_per_s:,.0f} images/s at {rate.tflops:g} TFLOP/s ({rate.source})"
            return Reached(share, source)
        at = f"from the operations, at the {share:.1%} of the peak that recipe={name} reached"
        return Reached(share, f"{at} with {known.method.backbone} ({rate.source})")
    shares = [*_published(spec)]
    span = (min(shares), max(shares)) if shares else None
    return Reached(cluster.efficiency, f"{cluster.efficiency:.0%} of the peak, assumed", assumed=True, span=span)


def _published(spec: RunSpec) -> Iterator[float]:
    """The shares that the recipes of all methods reach, of convolutions or of transformers as here."""
    sizes = registry.facts("backbones").BACKBONES
    kind = sizes[spec.method.backbone].batch_norm
    for name in registry.names():
        try:
            method = registry.method(name)
        except InputError:  # of a package that cannot be imported
            continue
        for made in method.recipes.values():
            known = made()
            if not known.rate or sizes[known.method.backbone].batch_norm != kind:
                continue
            if _such_a_device(known.rate, known.method, spec):
                yield _share(known.rate, method, known.method)


def _such_a_device(rate: Rate, measured: TrainConfig, spec: RunSpec) -> bool:
    """A share of another peak says nothing."""
    half, here = (config.precision != "fp32" for config in (measured, spec.method))
    return rate.gpu == bool(spec.cluster.gpus_per_node) and half == here


def _share(rate: Rate, method: Work, measured: TrainConfig) -> float:
    return cost.measured_efficiency(rate, method.sizes(measured, 1))
