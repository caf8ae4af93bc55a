"""Recipes with their sources, and refusals, that the methods had when their specs were still written out one by one;
but for demos, which are others since."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from launcher.errors import InputError
from launcher.spec import registry

BEFORE = json.loads(Path(__file__).with_name("said_before.json").read_text())


@pytest.mark.parametrize("name", BEFORE)
def test_every_recipe_has_its_source_and_what_to_expect(name):
    method = registry.method(name)
    for recipe, said in BEFORE[name]["recipes"].items():
        found = method.recipe(recipe)
        rate = found.rate.source if found.rate else None
        assert {"source": found.source, "expect": found.expect, "rate": rate} == said


@pytest.mark.parametrize("name", BEFORE)
def test_every_refusal_names_the_same_field_with_the_same_reason_and_fix(name):
    method = registry.method(name)
    lost = []
    for given, said in BEFORE[name]["refusals"]:
        (recipe, world), *_ = given.items()
        by_world = recipe in method.recipes
        config = method.recipe(recipe if by_world else "tiny").method
        with pytest.raises(InputError) as refusal:
            if not by_world:
                config = dataclasses.replace(config, **given)
                method.validate(config, 304)
            method.layout(config, world if by_world else 2)
        if _told(str(refusal.value)) != _told(said):
            lost.append((given, said, str(refusal.value)))
    assert not lost


def _told(line: str) -> str:
    """Without the names of backbones, of which there are more now, and without which of batch statistics, queue and
    cache divide by the world: they are named now only where they are there."""
    line = re.sub(r", or use resnet.*|; known: .*", "", line)
    return re.sub(r"a global batch of (\d+).* divide by it", r"a global batch of \1 does not divide by it", line)
