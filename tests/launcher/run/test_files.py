"""Files in a folder where others write: what is written is new and private, what is read is plain and bounded."""

import os
import stat

import pytest

from launcher.run import files

pytestmark = pytest.mark.fault

MISPLACED = {
    "a link": lambda path, target: path.symlink_to(target),
    "a link to itself": lambda path, _: path.symlink_to(path.name),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a FIFO": lambda path, _: os.mkfifo(path),
    "a folder": lambda path, _: path.mkdir(),
}


@pytest.fixture
def mine(tmp_path):
    """A file of the user's own, outside the folder."""
    file = tmp_path / "mine"
    file.write_text('{"mine": 1}')
    return file


@pytest.mark.parametrize("lay", MISPLACED.values(), ids=MISPLACED)
def test_only_plain_files_are_read(lay, tmp_path, mine):
    lay(tmp_path / "spec.json", mine)
    with pytest.raises(files.NotOurs, match=r"spec\.json: it is not a plain file; put back what was there"):
        files.read_json(tmp_path / "spec.json")


# The last is what Python reads and cannot write again.
DEEP = '{"a":' * 500 + "1" + "}" * 500
TEXTS = ("", "5", "[1]", "[" * 100_000, '{"a":' * 100_000, "{", "\xff", "null", DEEP)


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_json_is_an_object_or_refused(text, tmp_path):
    (tmp_path / "spec.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(files.NotOurs, match="it holds no JSON object"):
        files.read_json(tmp_path / "spec.json")


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "spec.json").open("wb") as file:
        file.truncate(files.LARGEST + 1)  # sparse
    with pytest.raises(files.NotOurs, match="67,108,865 bytes, more than the 67,108,864"):
        files.read(tmp_path / "spec.json")


def test_a_link_in_the_place_of_a_file_goes_and_what_it_meant_stays(tmp_path, mine):
    (tmp_path / "plan.json").symlink_to(mine)
    files.write_json(tmp_path / "plan.json", {"new": 2})
    assert mine.read_text() == '{"mine": 1}'
    assert not (tmp_path / "plan.json").is_symlink() and files.read_json(tmp_path / "plan.json") == {"new": 2}


def test_the_name_beside_is_another_each_time_and_nothing_is_left_of_a_write_that_fails(tmp_path):
    names = set()
    for _ in range(3):
        with pytest.raises(OSError), files.replacing(tmp_path / "plan.json") as file:
            names.add(os.readlink(f"/proc/self/fd/{file.fileno()}"))
            raise OSError
    assert len(names) == 3 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("folder", "file"), [(0o700, 0o600), (0o2750, 0o640), (0o755, 0o600), (0o2775, 0o600), (0o1777, 0o600)]
)
def test_a_file_is_read_by_its_folders_group_and_by_nobody_else(folder, file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(folder)
    files.write_json(tmp_path / "run" / "spec.json", {})
    assert stat.S_IMODE((tmp_path / "run" / "spec.json").stat().st_mode) == file
