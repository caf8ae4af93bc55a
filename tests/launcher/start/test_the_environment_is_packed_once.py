"""A virtual environment and what it stands on: packed at a submission, unpacked on a node, and run from there alone."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from environments import environment_at, packages

from launcher.errors import InputError
from launcher.plan import steps
from launcher.run import pruning
from launcher.start import packed, submit, unpacked

DIGEST = "d" * 64


def order(about: dict, archive: Path, folder: Path) -> dict:
    wanted = {name: about[name] for name in ("digest", "sha256", "bytes", "prefixes")}
    return {**wanted, "archive": str(archive), "folder": str(folder)}


def carried_out(order: dict, python: Path | str = sys.executable) -> subprocess.Popen:
    words = [python, "-I", "-S", unpacked.__file__, json.dumps(order)]
    return subprocess.Popen(
        words, env={**os.environ, "SLURMD_NODENAME": "n1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def answer(task: subprocess.Popen) -> dict:
    return json.loads(task.communicate(timeout=600)[0].splitlines()[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> SimpleNamespace:
    """An environment in a folder with an odd name, packed: its interpreter, what was said of it, where it lies."""
    folder = tmp_path_factory.mktemp("shared")
    python = environment_at(folder / "my %n env")
    site = packages(python)
    (site / "one.py").write_text("import sys\nname = 'one'\n")
    (site / "inside.pth").write_text(f"{python.parents[1]}/src\n")
    (python.parents[1] / "src").mkdir()
    (python.parents[1] / "src" / "two.py").write_text("name = 'two'\n")
    (folder / "cache").mkdir()
    (folder / "cache" / "three.py").write_text("name = 'three'\n")
    (site / "three.py").symlink_to(folder / "cache" / "three.py")
    (python.parent / "say").write_text(f"#!{python.parents[1]}/bin/python\nprint('said')\n")
    (python.parent / "say").chmod(0o755)
    archive = packed._Archive(packed.Environment(str(python)), folder / "packed", None)
    return SimpleNamespace(folder=folder, python=python, about=archive.about, archive=archive.path / unpacked.ARCHIVE)


def test_the_copy_runs_by_itself(whole, tmp_path):
    disk = tmp_path / "disk of %t"
    disk.mkdir()
    wanted = order(whole.about, whole.archive, disk)
    first = answer(carried_out(wanted, whole.python))
    assert (first["node"], first["is"], first["fresh"]) == ("n1", "there", True)
    target = unpacked.home(disk) / whole.about["digest"]
    copy = target / whole.about["python"]
    assert not answer(carried_out(wanted, copy))["fresh"]
    aside = whole.folder.rename(whole.folder.with_name("gone"))
    try:
        told = "import json, sys, ssl, one, two, three; print(json.dumps([sys.prefix, sys.base_prefix, *sys.path]))"
        said = subprocess.run([copy, "-P", "-c", told], env={}, capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        assert all(
            path.startswith(str(target)) for path in json.loads(said.stdout) if "base" in whole.about["prefixes"]
        )
        assert json.loads(said.stdout)[0] == f"{target}/env"
    finally:
        aside.rename(whole.folder)
    assert (copy.parent / "say").read_text().startswith(f"#!{target}/env/bin/python\n")
    assert target.stat().st_mode & 0o077 == 0


def test_a_submission_writes_down_what_its_ranks_start_from(runs, whole, monkeypatch):
    asked, apart = [], packed.Environment.apart
    monkeypatch.setattr(packed.Environment, "apart", lambda self, code: asked.append(code) or apart(self, code))
    python = whole.folder / "link"  # cluster.python is shell words, and the folder's own name has a space
    python.symlink_to(whole.python.parents[1])
    made = [runs.make(seed, python=f"{python}/bin/python", local_env="/scratch") for seed in (0, 1)]
    done: list[tuple] = []
    notes = packed.into(made, lambda *figures: done.append(figures))
    stages = [*dict.fromkeys(stage for stage, *_ in done)]
    assert stages == ["looking at the environment", "packing the environment"]
    packing = [figures for stage, *figures in done if stage == stages[1]]
    assert packing[-1][0] == packing[-1][1]
    assert asked == [made[0].code_folder().resolve()]  # of both, whose code is one
    for run in made:
        assert re.fullmatch(rf"{python} \(.* packed in .*\) is unpacked in /scratch on each node, .*", notes[run.id])
        (event,) = run.history().all("packed")
        assert event["fresh"] and (run.path / "environment" / unpacked.ARCHIVE).stat().st_size == event["size"]
    packed.into(made)
    assert [event["fresh"] for event in made[0].history().all("packed")] == [True, False]
    archive = runs.folder / pruning.ENVIRONMENTS / event["digest"] / unpacked.ARCHIVE
    content = bytearray(archive.read_bytes())
    content[-3000] ^= 1
    archive.write_bytes(content)
    packed.forget(archive, "of another")
    assert packed.of(made[0])["sha256"] == event["sha256"]
    packed.forget(archive, event["sha256"])  # its nodes have seen it
    packed.into(made)
    found = hashlib.sha256((made[0].path / "environment" / unpacked.ARCHIVE).read_bytes()).hexdigest()
    assert [run.history().last("packed")["fresh"] for run in made] == [True, True]
    assert packed.of(made[0])["sha256"] == found
    archive.unlink()  # a cluster may take away what is old
    assert packed._complete(archive.parent) is None
    # A real refusal to write: a limit on the size of files in the place of a full disk.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(InputError, match=rf"^runs={runs.folder}: cannot write there \(File too large\); free some"):
            packed.into(made)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_runs_and_copies_in_the_environment_itself_are_refused(runs, monkeypatch):
    folder = runs.folder.parent
    python = str(environment_at(folder))
    with pytest.raises(InputError, match=rf"^runs={runs.folder}: it lies in the environment {folder}, which"):
        packed.into([runs.make(python=python, local_env="/scratch")])
    monkeypatch.setenv("COPIES", f"{folder}/copies")
    for given in (f"{folder}/lib/../copies", "$COPIES"):
        with pytest.raises(InputError) as refused:
            packed.of_ranks(runs.spec(python=python, local_env=given), Path("/runs"))
        said = f"cluster.local_env={given}: it lies in the environment {folder}, which cluster.local_env packs"
        assert str(refused.value) == f"{said}; choose a folder of each node's own disk"


def test_an_interpreter_that_cannot_be_packed_is_refused_before_anything_is_made(runs, planned, tmp_path):
    spec = runs.spec(python=f"{tmp_path}/none", local_env="/scratch")
    with pytest.raises(InputError, match=rf"^cluster.python={tmp_path}/none: it does not say where its packages are"):
        submit.check(spec, planned)


def test_what_is_installed_is_known_again(tmp_path):
    python = environment_at(tmp_path / "env")
    site = packages(python)
    (site / "module.py").write_text("a = 1\n")

    def digest() -> str:
        return packed.digest_of(packed.Environment(str(python)).files())

    before = digest()
    subprocess.run([python, "-c", "import module"], check=True)  # compiles it
    assert list(site.glob("__pycache__/module*")) and digest() == before
    (site / "module.py").write_text("a = 2\n")
    edited = digest()
    (site / "installed.py").write_text("")
    assert len({before, edited, digest()}) == 3


def test_what_is_installed_elsewhere_is_named_but_for_the_runs_own_code(tmp_path):
    python = environment_at(tmp_path / "env")
    for name in ("theirs", "ours"):
        (tmp_path / name / name).mkdir(parents=True)
        (packages(python) / f"{name}-1.dist-info").mkdir()
        direct = {"url": f"file://{tmp_path}/{name}", "dir_info": {"editable": True}}
        (packages(python) / f"{name}-1.dist-info" / "direct_url.json").write_text(json.dumps(direct))
    (tmp_path / "elsewhere").mkdir()
    (packages(python) / "elsewhere.pth").write_text(f"{tmp_path}/elsewhere\n")
    (tmp_path / "code" / "ours").mkdir(parents=True)
    apart = packed.Environment(str(python)).apart(tmp_path / "code")
    assert apart == [f"{tmp_path}/elsewhere", f"{tmp_path}/theirs"]


# -- on a node ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def laid(tmp_path) -> Callable[..., bool]:
    """`laid(digest)`: unpacks a small archive as that one's on a node's disk; whether it was new."""
    (tmp_path / "env").mkdir()
    for name in ("a.py", "b.py"):
        (tmp_path / "env" / name).write_text(f"name = {name!r}\n")
    archive = tmp_path / unpacked.ARCHIVE
    subprocess.run(["tar", "-cf", archive, "-C", tmp_path, "env"], check=True)
    sha256 = packed.hashlib.sha256(archive.read_bytes()).hexdigest()
    disk = tmp_path / "disk"
    disk.mkdir()

    def lay(digest: str = DIGEST, **other: object) -> bool:
        about = {"digest": digest, "sha256": sha256, "bytes": 1000, "prefixes": {}}
        return unpacked.lay({**order(about, archive, disk), **other}, lambda *_, **__: None)

    lay.home, lay.archive = unpacked.home(disk), archive
    return lay


def test_it_is_unpacked_once_and_again_where_something_is_missing(laid):
    assert laid() and not laid()
    (laid.home / DIGEST / "env" / "written_by_a_rank").touch()
    assert not laid()
    (laid.home / DIGEST / "env" / "a.py").write_text("name = 'x.py'\n")
    assert laid() and (laid.home / DIGEST / "env" / "a.py").read_text() == "name = 'a.py'\n"
    (laid.home / DIGEST / "env" / "b.py").unlink()
    assert laid()
    (laid.home / DIGEST / unpacked.INVENTORY).write_bytes(b"")
    assert laid()
    assert {path.name for path in laid.home.iterdir()} == {DIGEST, "lock"}


@pytest.mark.parametrize("harm", ["a byte", "the end", "all of it"])
def test_an_archive_that_is_not_what_was_packed_leaves_nothing(laid, harm):
    content = bytearray(laid.archive.read_bytes())
    content[1030] ^= 1
    laid.archive.write_bytes({"a byte": content, "the end": content[:700], "all of it": b""}[harm])
    with pytest.raises(unpacked.Spoiled, match=rf"{unpacked.ARCHIVE}"):
        laid()
    assert {path.name for path in laid.home.iterdir()} == {"lock"}


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_an_archive_that_cannot_be_read_is_not_the_nodes_fault(laid, monkeypatch, number):
    failed = rf"\({os.strerror(number)}\)$"

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as its_own_disk:
        its_own_disk.setattr(unpacked.tarfile.TarFile, "extract", fails)
        with pytest.raises(unpacked.Refused, match=f"^cannot unpack .* {failed}") as refused:
            laid()
    assert not isinstance(refused.value, unpacked.Unread)
    away = SimpleNamespace(read=fails)
    monkeypatch.setattr(unpacked, "open", lambda *_: contextlib.nullcontext(away), raising=False)
    with pytest.raises(unpacked.Unread, match=rf"^cannot read {laid.archive} {failed}"):
        laid()
    assert {path.name for path in laid.home.iterdir()} == {"lock"}


def test_nor_is_one_that_is_gone(whole, tmp_path):
    said = answer(carried_out(order(whole.about, tmp_path / "gone", tmp_path)))
    assert (said["is"], said["unread"]) == ("refused", True)
    assert said["why"] == f"cannot read {tmp_path}/gone (No such file or directory)"


def test_one_that_is_killed_leaves_nothing_that_counts(whole, tmp_path, until):
    wanted = order(whole.about, whole.archive, tmp_path)
    home = unpacked.home(tmp_path)
    task = carried_out(wanted)
    until(lambda: list(home.glob(f".{whole.about['digest']}.*/*")))
    task.send_signal(signal.SIGKILL)
    task.communicate()
    assert list(home.glob(".*")) and not (home / whole.about["digest"]).exists()
    both = [carried_out(wanted) for _ in range(2)]
    assert sorted(answer(task)["fresh"] for task in both) == [False, True]
    assert {path.name for path in home.iterdir()} == {whole.about["digest"], "lock"}


def test_room_is_made_of_what_nobody_runs_from(laid, monkeypatch):
    for digest, age in (("old", 3), ("older", 4), ("held", 5), ("just looked at", 0)):
        laid(digest)
        then = time.time() - age * 2 * unpacked.RECENT_SECONDS
        os.utime(laid.home / digest / unpacked.INVENTORY, (then, then))
    holder = os.open(laid.home / "held", os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_SH)
    free: dict[bool, int] = {True: 98_600_000, False: 10**9}  # while the oldest is there, and after
    usage = {"disk_usage": lambda _: SimpleNamespace(free=free[(laid.home / "older").exists()])}
    monkeypatch.setattr(unpacked, "shutil", SimpleNamespace(**{**vars(shutil), **usage}))

    def there() -> set[str]:
        return {path.name for path in laid.home.iterdir()} - {"lock"}

    assert laid("new", bytes=104_000_000) and there() == {"old", "held", "just looked at", "new"}
    free[False] = free[True]
    with pytest.raises(unpacked.Refused, match=r"^has 99 MB free in .*/disk, and 104 MB are needed$"):
        laid("newer", bytes=104_000_000)
    assert there() == {"held", "just looked at", "new"}
    os.close(holder)


def test_a_rank_holds_what_it_runs_from(laid, monkeypatch):
    laid()
    monkeypatch.setenv(unpacked.VARIABLE, str(laid.home / DIGEST))
    unpacked.hold()
    unpacked._remove(laid.home / DIGEST)
    assert (laid.home / DIGEST).exists()
    monkeypatch.setenv(unpacked.VARIABLE, str(laid.home / "gone"))
    unpacked.hold()


def test_what_others_can_change_is_refused(laid, tmp_path, monkeypatch):
    disk = laid.home.parent
    for how, why in (
        (lambda: disk.chmod(0o777), "lets others rename what lies in"),
        (lambda: disk.rename(tmp_path / "aside"), "has no folder"),
        (lambda: disk.write_text(""), "has no folder"),
        (lambda: (disk.unlink(), disk.mkdir(), laid.home.symlink_to(tmp_path)), "has no plain folder"),
        (lambda: (laid.home.unlink(), laid.home.mkdir(), laid.home.chmod(0o770)), "open for others to write"),
        (lambda: monkeypatch.setattr(unpacked, "kind_of", lambda folder: "lustre"), "on lustre, which nodes share"),
    ):
        how()
        with pytest.raises(unpacked.Refused, match=why):
            laid()
        if disk.is_dir():
            disk.chmod(0o700)
    assert not list(disk.glob("*/[!l]*"))


def test_where_no_folder_can_be_made_or_the_archive_is_spoiled_the_line_says_so(whole, tmp_path):
    said = answer(carried_out(order(whole.about, whole.archive, Path("/proc"))))
    assert said["is"] == "refused" and not said["spoiled"]
    assert re.fullmatch(r"cannot make a folder in /proc \([A-Z][a-z ]+\)", said["why"])
    (tmp_path / "empty").touch()
    said = answer(carried_out(order(whole.about, tmp_path / "empty", tmp_path)))
    assert said["spoiled"] and said["why"].startswith(f"cannot read {tmp_path}/empty (")


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's file takes root")
def test_what_belongs_to_another_user_is_refused(laid):
    laid()
    for path in (laid.archive, laid.home, laid.home.parent):
        os.chown(path, 12345, -1)
        with pytest.raises(unpacked.Refused, match=r"another user's|from user 12345"):
            laid("other")
    # The task itself does not start what lies there to look at it.
    words = ["sh", "-c", steps.UNPACK, "sslrun", str(laid.home), "/bin/echo", "/bin/false", "file", "order"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == ""
    laid.home.rename(laid.home.with_name("mine"))
    laid.home.symlink_to("mine")
    os.chown(laid.home.with_name("mine"), os.geteuid(), -1)
    assert subprocess.run(words, capture_output=True, text=True).stdout == ""


def test_who_cannot_be_looked_at_by_the_copy_is_by_the_shared_python(laid, tmp_path):
    laid()
    for exit_code, said in ((0, ""), (1, "-I -S file order\n"), (steps.REFUSED, "")):
        copy = tmp_path / "copy"
        copy.write_text(f"#!/bin/sh\nexit {exit_code}\n")
        copy.chmod(0o755)
        words = ["sh", "-c", steps.UNPACK, "sslrun", str(laid.home), copy, "/bin/echo", "file", "order"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert (done.stdout, done.returncode) == (said, steps.REFUSED if exit_code == steps.REFUSED else 0)
    assert steps.REFUSED == unpacked.REFUSED


def test_an_environment_that_no_run_uses_is_pruned(fresh, ledgers, whole):
    ledgers.start(fresh)
    shared = fresh.runs / pruning.ENVIRONMENTS
    shared.mkdir()
    for name in ("used", "unused"):
        shutil.copytree(whole.archive.parent, shared / name, copy_function=os.link)
    (fresh.path / "environment").symlink_to("../.environments/used")
    found = [item for item in pruning.find(fresh, 1, dict).doomed if item.what == pruning.ENVIRONMENT]
    assert [item.path for item in found] == [shared / "unused"]
    pruning.delete(found, fresh.runs)
    assert [path.name for path in shared.iterdir()] == ["used"]
