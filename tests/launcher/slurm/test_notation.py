"""Slurm's short form of node names, without asking Slurm."""

import pytest

from launcher.slurm import notation


@pytest.mark.parametrize(
    ("short", "names"),
    [
        ("n1", ["n1"]),
        ("n[1-3,7]", ["n1", "n2", "n3", "n7"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("a1,b[2-3],login", ["a1", "b2", "b3", "login"]),
        ("r[0-1]n[01-02]-ib", ["r0n01-ib", "r0n02-ib", "r1n01-ib", "r1n02-ib"]),
        ("gpu[9-10]", ["gpu9", "gpu10"]),
        ("", []),
        ("(null)", []),
        ("None assigned", []),
    ],
)
def test_every_name_once_and_in_order(short, names):
    assert notation.expand(short) == names
