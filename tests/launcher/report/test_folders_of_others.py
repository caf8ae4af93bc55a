"""A folder of runs that somebody else may have prepared: what lies there is data, and nothing outside is touched."""

import os
import sqlite3
from pathlib import Path

import pytest

from launcher.report import curves, index, life, page
from launcher.report.index import RunIndex

pytestmark = pytest.mark.fault

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def run(finished):
    """One whose folder somebody else may have written."""
    return finished.table().rows[0].runs[0]


@pytest.fixture
def mine(tmp_path):
    """A file of the reader's own, elsewhere."""
    file = tmp_path / "mine"
    file.write_bytes(PNG + b"private")
    return file


def test_a_page_replaces_a_link_and_is_the_readers_alone(finished, run, mine):
    file = page.default_path(finished.folder, run.id)
    file.parent.mkdir(exist_ok=True)
    file.symlink_to(mine)
    page.run(life.of(index.RunDir(run.path)), file, "sslrun report")
    assert mine.read_bytes() == PNG + b"private"
    assert file.stat().st_mode & 0o777 == 0o600 and "<html" in file.read_text()
    assert not [name for name in os.listdir(file.parent) if name.startswith(".")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
@pytest.mark.parametrize("theirs", ["the folder of runs", "its folder of pages", "a link to the reader's own"])
def test_the_page_of_a_folder_of_somebody_else_lies_with_the_reader(theirs, finished, tmp_path):
    pages = finished.folder / page.FOLDER
    assert page.default_path(finished.folder, "x").parent == pages
    if theirs == "the folder of runs":
        os.chown(finished.folder, 65534, 65534)
    elif theirs == "its folder of pages":
        pages.mkdir(exist_ok=True)
        os.chown(pages, 65534, 65534)
    else:
        pages.symlink_to(tmp_path)
        os.chown(pages, 65534, 65534, follow_symlinks=False)
    assert page.default_path(finished.folder, "x").parent == Path(os.environ["XDG_CACHE_HOME"]) / "sslrun" / page.FOLDER


def test_a_picture_that_is_a_link_or_none_is_named_and_not_shown(run, mine):
    folder = Path(run.path)
    (folder / "loss.png").symlink_to(mine)
    (folder / "words.png").write_text("no picture")
    os.mkfifo(folder / "pipe.png")
    (folder / "elsewhere").symlink_to(mine.parent)
    (mine.parent / "theirs.png").write_bytes(PNG)
    found = {picture.name: picture.source for picture in life.of(index.RunDir(run.path)).pictures}
    assert found == {"loss.png": "", "words.png": "", "pipe.png": ""}


def test_no_database_of_the_folder_is_opened(finished, tmp_path):
    mine = tmp_path / "mine.sqlite"
    with sqlite3.connect(mine) as database:
        database.execute("CREATE TABLE runs (mine)")
    (finished.folder / ".index.sqlite").symlink_to(mine)
    before = mine.read_bytes()
    rows, _ = RunIndex(finished.folder).rows()
    again, _ = RunIndex(finished.folder).rows()
    assert rows == again and index.place(finished.folder).exists()
    assert mine.read_bytes() == before


def test_curves_of_anything_but_a_file_are_none(run):
    file = Path(run.path) / "metrics.jsonl"
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    assert curves.read(file) == []
    file.unlink()
    file.write_text('{"step": 1, "loss": 2}\n[[[' + "[" * 100_000 + '\n5\n{"step": 2, "loss": 1}\n')
    assert [(c.name, c.values) for c in curves.read(file)] == [("loss", [2.0, 1.0])]
