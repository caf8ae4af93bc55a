"""The folder of a result appears whole, and nothing that somebody else has laid beside it is written through."""

from types import SimpleNamespace

import pytest
import torch

from launcher.errors import InputError
from launcher.runtime.dist import World
from methods.kmeans.results import Writer

IDENTITY = "0123456789abcdef" * 4


def writer(out):
    spec = SimpleNamespace(identity=IDENTITY, method=SimpleNamespace(out=str(out)))
    return Writer(SimpleNamespace(world=World(0, 1, torch.device("cpu")), run=None, spec=spec), None)


def test_a_link_beside_it_is_not_followed(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (IDENTITY[:16], f"{IDENTITY[:16]}.0"):
        (tmp_path / f".out[1].{name}").symlink_to(elsewhere)
    written = writer(tmp_path / "out[1]")
    written._make()
    assert not list(elsewhere.iterdir()) and not written._beside.is_symlink()


def test_what_a_start_that_was_killed_left_goes(tmp_path):
    first, second = writer(tmp_path / "out[1]"), writer(tmp_path / "out[1]")
    first._make()
    assert first._beside != second._beside
    second._make()
    assert [path for path in tmp_path.iterdir()] == [second._beside]


def test_where_one_cannot_write_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^out=.*cannot be written"):
        writer(tmp_path / "file" / "out")
