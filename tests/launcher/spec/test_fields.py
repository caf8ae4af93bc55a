"""A field's range is said once, beside its default, and every other value is refused in one line."""

import dataclasses
import math
from dataclasses import dataclass

import pytest

from launcher.errors import InputError
from launcher.spec.fields import at_least, below_one, check_ranges, choice, later, not_negative, ops, positive, share
from methods.rotnet.spec import RotNetConfig, demo


@dataclass
class Config:
    width: int = at_least(2, 8)
    rate: float = positive(0.1, "scores are divided by it")
    decay: float = not_negative(0.0)
    momentum: float = below_one(0.9)
    kept: float = share(1.0)
    optimizer: str = choice("lars", "adamw", "sgd", default="sgd")
    clip: float | None = positive(None)
    every: int = ops(positive(10))
    final: float = later(not_negative(0.5))


@dataclass
class Narrower(Config):
    rate: float = 0.2
    width: int = at_least(1, 1)


REFUSED = [
    ("width", 1, "too few; give 2 or more"),
    ("rate", 0.0, "scores are divided by it; give a positive number"),
    ("rate", math.nan, "scores are divided by it; give a positive number"),
    ("decay", math.inf, "it is negative or infinite; give 0 or more"),
    ("momentum", 1.0, "out of range; give a number from 0 to below 1"),
    ("kept", 1.1, "out of range; give a number from 0 to 1"),
    ("optimizer", "adam", "no such choice; use lars or adamw or sgd"),
    ("clip", -1.0, "it must be positive and finite; give a positive number"),
    ("every", 0, "it must be positive and finite; give a positive number"),
    ("final", -0.1, "it is negative or infinite; give 0 or more"),
]


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_what_lies_outside_is_refused_by_name(name, value, said):
    with pytest.raises(InputError) as refused:
        check_ranges(Config(**{name: value}), "method.")
    assert str(refused.value) == f"method.{name}={value}: {said}"


def test_the_defaults_are_those_that_were_given():
    check_ranges(Config())
    assert dataclasses.astuple(Config()) == (8, 0.1, 0.0, 0.9, 1.0, "sgd", None, 10, 0.5)
    said = {f.name: f.metadata.get("science") for f in dataclasses.fields(Config)}
    assert said["every"] is False and said["final"] == "given" and said["rate"] is None


def test_a_field_that_is_made_anew_for_each_config_may_be_operational():
    made = ops(dataclasses.field(default_factory=list))
    assert made.default_factory is list and made.metadata["science"] is False


def test_a_subclass_with_another_default_keeps_the_range_or_gives_its_own():
    check_ranges(Narrower(width=1))
    for bad in (Narrower(rate=0.0), Narrower(width=0)):
        with pytest.raises(InputError):
            check_ranges(bad)


def test_a_recipe_is_another_one_but_for_what_it_names():
    small = demo()
    other = small.but(lr=0.5, images=7, source="here")
    assert (other.method.lr, other.images, other.source, other.here) == (0.5, 7, "here", True)
    assert isinstance(other.method, RotNetConfig)
    assert dataclasses.replace(other.method, lr=small.method.lr) == small.method
    assert (small.method.lr, small.images) == (0.05, 6080)
