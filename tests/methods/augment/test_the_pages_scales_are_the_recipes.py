"""docs/data.md gives the shares of the area that the papers' recipes crop."""

import re
from pathlib import Path

import pytest

from launcher.spec import registry

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text()


@pytest.mark.parametrize("name", ["SwAV", "DINO", "SMoG"])
def test_the_pages_scales_are_the_recipes(name):
    config = registry.method(name.lower()).recipe("paper").method
    said = re.search(rf"{name}\s\(([\d., ]+)\) and \(([\d., ]+)\)", PAGE)
    found = [[float(number) for number in scale.split(", ")] for scale in said.groups()]
    assert found == [config.crop_scale, config.local_scale]
