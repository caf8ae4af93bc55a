"""Every YAML of sweeps/ composes, validates and plans at the paper's scale and at the demo's, and says its command."""

import pytest

from launcher import ablation, asked
from launcher import plan as planning

FILES = ablation.names()
PAPER_RANKS = ("cluster=generic", "nodes=8")


@pytest.mark.parametrize("name", FILES)
def test_it_opens_with_its_commands(name):
    opening = FILES[name].read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("# ") for line in opening)
    for recipe in ("", "recipe=demo"):
        words = ["sslrun --multirun", f"sweep={name}", *recipe.split()]
        assert any(all(word in line.split("  #")[0] for word in words) for line in opening), words
    assert "GPU-hours" in opening[0]
    assert "minutes" in opening[1]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("scale", ["paper", "demo"])
def test_its_points_are_runs_of_their_own_that_can_be_planned(name, scale):
    table = ablation.load(name)
    given = [] if scale == "demo" or any("nodes=" in word for word in table.scale(scale).fixed) else PAPER_RANKS
    wanted = asked.read([f"sweep={name}", f"recipe={scale}", *given])
    members, absent = asked.members(wanted, planning=True)
    assert len({id(member.row) for member in members}) + len(absent) == len(table.points)
    assert len({member.point.spec.identity for member in members}) == len(members)
    for member in members:
        planning.make(member.point.spec, member.point.recipe)
