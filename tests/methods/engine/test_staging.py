"""Copies of shards on a node's own disk: made once, verified, found again, never half there."""

import contextlib
import os
import threading
from types import SimpleNamespace

import pytest

from launcher.errors import InputError
from methods.data.sets.shards.spec import ShardsData
from methods.data.shards import ImageShards
from methods.data.spec import check
from methods.engine import staging


@pytest.fixture
def shards(tmp_path):
    """Three tars of a kilobyte that hold no image; copies are all that is asked of them."""
    for number in range(3):
        file = tmp_path / "shards" / f"{number}.tar"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(bytes([number]) * 1000 + bytes(9240))
    (tmp_path / "disk").mkdir()
    return tmp_path / "shards"


def job(shards, folder, ranks=None):
    """One rank, or all that share `ranks`."""
    world = SimpleNamespace(gather=ranks or (lambda value: [value]), is_main=True)
    spec = SimpleNamespace(data=ShardsData(path=str(shards), stage=str(folder)))
    told = {"safe_point": lambda *_: None, "clock": lambda _: contextlib.nullcontext()}
    return SimpleNamespace(spec=spec, dataset=ImageShards(shards, "train"), world=world, **told)


def staged(folder):
    (target,) = folder.glob("sslrun-*")
    return {file.name: file for file in target.glob("*.tar")}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(staging, "LOOK_SECONDS", 0.01)


def test_the_copies_are_read_and_found_by_the_next_run(shards, tmp_path):
    one = job(shards, tmp_path / "disk")
    staging.stage(one)
    copies = staged(tmp_path / "disk")
    assert {name: file.read_bytes() for name, file in copies.items()} == {
        file.name: file.read_bytes() for file in shards.glob("*.tar")
    }
    assert one.dataset._file(1).name == str(copies["1.tar"])
    before = {name: file.stat().st_ino for name, file in copies.items()}
    staging.stage(job(shards, tmp_path / "disk"))
    assert {name: file.stat().st_ino for name, file in staged(tmp_path / "disk").items()} == before


def test_a_stale_copy_and_what_a_kill_left_are_made_anew(shards, tmp_path):
    staging.stage(job(shards, tmp_path / "disk"))
    copies = staged(tmp_path / "disk")
    copies["0.tar"].write_bytes(b"half")
    half = copies["1.tar"].with_name(".2.tar.part")
    half.write_bytes(b"half")
    os.utime(shards / "1.tar", (5, 5))
    before = copies["2.tar"].stat().st_ino
    staging.stage(job(shards, tmp_path / "disk"))
    assert all(file.read_bytes() == (shards / name).read_bytes() for name, file in copies.items())
    assert copies["1.tar"].stat().st_mtime == 5 and copies["2.tar"].stat().st_ino == before and not half.exists()


def test_a_copy_that_came_out_wrong_never_gets_its_name(shards, tmp_path, monkeypatch):
    digest = staging.hashlib.file_digest

    def another(stream, kind):
        found = digest(stream, kind)
        found.update(b"x")
        return found

    monkeypatch.setattr(staging.hashlib, "file_digest", another)
    with pytest.raises(InputError, match=r"data\.stage=.*the copy differs from the original.*; give a folder"):
        staging.stage(job(shards, tmp_path / "disk"))
    assert not staged(tmp_path / "disk") and not list((tmp_path / "disk").rglob("*.tar*"))


def test_what_cannot_be_used_is_one_line(shards, tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"on .*: No such file or directory: .*nowhere.*; give a folder of the node's"):
        staging.stage(job(shards, tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"data\.stage='\$NOT_SET/x': on .*: no such variable is set; give"):
        staging.stage(job(shards, "$NOT_SET/x"))
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
    with pytest.raises(InputError, match=r"0\.0 GB more are needed, and 0\.0 GB are free; give a larger folder"):
        staging.stage(job(shards, tmp_path / "disk"))
    with pytest.raises(InputError, match=r"data\.stage='scratch': it is relative, .*; give it from the root on"):
        check(ShardsData(path=str(shards), stage="scratch"))


def test_a_rank_whose_copying_ends_early_ends_the_run(shards, tmp_path, monkeypatch):
    def odd(*_):
        raise ValueError("odd")

    monkeypatch.setattr(staging, "_copy", odd)
    with pytest.raises(InputError, match=r"data\.stage=.*: ValueError: odd; start it again, or leave it out"):
        staging.stage(job(shards, tmp_path / "disk"))
    monkeypatch.setattr(staging._Copying, "run", lambda _: None)
    with pytest.raises(InputError, match="0 of 3 tars are on every node, and nobody copies the others"):
        staging.stage(job(shards, tmp_path / "disk"))


def test_its_time_is_booked_and_the_log_says_how_far_it_is(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(staging, "SAY_SECONDS", -1)
    booked, one = [], job(shards, tmp_path / "disk")
    one.clock = lambda what: contextlib.nullcontext(booked.append(what))
    staging.stage(one)
    assert booked == ["staging"] and "staging: 3/3 tars" in capsys.readouterr().out


def test_a_variable_of_the_node_is_its_folder(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "disk"))
    check(ShardsData(path=str(shards), stage="$TMPDIR"))
    staging.stage(job(shards, "$TMPDIR"))
    assert len(staged(tmp_path / "disk")) == 3


def test_of_the_ranks_of_a_node_one_copies(shards, tmp_path, monkeypatch):
    copied, copy = [], staging._copy
    monkeypatch.setattr(staging, "_copy", lambda source, target: (copied.append(target.name), copy(source, target)))
    ranks = [job(shards, tmp_path / "disk") for _ in range(4)]
    threads = [threading.Thread(target=staging.stage, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(copied) == ["0.tar", "1.tar", "2.tar"]
    assert all(rank.dataset._file(0).name == str(staged(tmp_path / "disk")["0.tar"]) for rank in ranks)


def test_a_stop_is_heard_while_it_copies(shards, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(stage, done, total):
        assert (stage, total) == ("staging", 3)
        raise Stop

    wait = threading.Event()
    monkeypatch.setattr(staging, "_copy", lambda *_: wait.wait())
    stopped = job(shards, tmp_path / "disk")
    stopped.safe_point = stop
    try:
        with pytest.raises(Stop):
            staging.stage(stopped)
    finally:
        wait.set()


def test_without_data_stage_nothing_happens(shards, tmp_path):
    plain = job(shards, tmp_path / "disk")
    plain.spec.data.stage = None
    staging.stage(plain)
    assert not list((tmp_path / "disk").iterdir()) and plain.dataset._file(0).name == str(shards / "0.tar")


def target_of(shards, disk):
    return staging._Copying(str(disk), ImageShards(shards, "train")).target


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine"
    file.write_bytes(b"mine")
    return file


def test_a_link_in_the_place_of_its_folder_is_refused(shards, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    target_of(shards, tmp_path / "disk").symlink_to(elsewhere)
    with pytest.raises(InputError, match=r"data\.stage=.*: it is not a plain folder; take it away"):
        staging.stage(job(shards, tmp_path / "disk"))
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("name", ["lock", "0.tar"])
def test_no_link_in_its_folder_is_followed(shards, tmp_path, mine, name):
    target = target_of(shards, tmp_path / "disk")
    target.mkdir(mode=0o700)
    (target / name).symlink_to(mine)
    if name == "lock":
        with pytest.raises(InputError, match=r"lock: it is not a plain file"):
            staging.stage(job(shards, tmp_path / "disk"))
    else:
        staging.stage(job(shards, tmp_path / "disk"))
        assert (target / "0.tar").read_bytes() == (shards / "0.tar").read_bytes() and not (target / name).is_symlink()
    assert mine.read_bytes() == b"mine"


def poisoned(shards, target):
    """A file of the size and the time of a tar, in the place of its copy."""
    target.mkdir(mode=0o700, exist_ok=True)
    status = (shards / "0.tar").stat()
    (target / "0.tar").write_bytes(bytes(status.st_size))
    os.utime(target / "0.tar", ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_what_lies_where_others_can_write_is_no_copy(shards, tmp_path, mode):
    target = target_of(shards, tmp_path / "disk")
    poisoned(shards, target)
    target.chmod(mode)
    with pytest.raises(InputError, match=r"data\.stage=.*: others can write there; take it away, or `chmod go-w"):
        staging.stage(job(shards, tmp_path / "disk"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_folder_that_somebody_else_has_laid_is_refused(shards, tmp_path):
    target = target_of(shards, tmp_path / "disk")
    poisoned(shards, target)
    os.chown(target, 65534, 65534)
    with pytest.raises(InputError, match=r"data\.stage=.*belongs to user 65534, not to you; give another folder"):
        staging.stage(job(shards, tmp_path / "disk"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_a_copy_that_somebody_else_put_there_later_is_not_read(shards, tmp_path):
    one = job(shards, tmp_path / "disk")
    staging.stage(one)
    os.chown(staged(tmp_path / "disk")["0.tar"], 65534, 65534)
    with pytest.raises(InputError, match=r"0\.tar: it belongs to user 65534"):
        one.dataset._file(0)


def test_the_copies_are_the_users_alone(shards, tmp_path):
    staging.stage(job(shards, tmp_path / "disk"))
    copies = staged(tmp_path / "disk")
    assert {file.stat().st_mode & 0o777 for file in copies.values()} == {0o600}
    assert copies["0.tar"].parent.stat().st_mode & 0o777 == 0o700
