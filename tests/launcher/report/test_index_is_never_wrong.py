"""The index answers like the runs' own files, whatever happens to either: stale, deleted, corrupted or unwritable."""

import dataclasses
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.plan import kinds
from launcher.report import index
from launcher.report.index import RunIndex, place
from launcher.report.remembered import PARTS, IndexFile
from launcher.run.folder import every
from launcher.run.ledger import Ledger

CODE = """
import json, sys
from pathlib import Path
from launcher.report.index import RunIndex
print(json.dumps([row.facts for row in RunIndex(Path(sys.argv[1])).rows()[0]]))
"""


@pytest.fixture(scope="module")
def made(ledgers_in, tmp_path_factory):
    """Eight runs that have ended."""
    ledgers = ledgers_in(tmp_path_factory.mktemp("made") / "runs")
    for seed, state in enumerate(["done", "failed", "stopped", "cancelled"] * 2):
        run = ledgers.create("method=rotnet", "recipe=tiny", f"seed={seed}")
        ledgers.start(run)
        ledgers.save(run, 5 + seed)
        ledgers.progress(run, 6 + seed, loss=1.5)
        ledgers.say(run, "eval", protocol="knn", step=5, scores={"trained": 50.0 + seed})
        ledgers.end(run, state)
    return ledgers.folder


@pytest.fixture
def ended(made, ledgers):
    """A copy of them for one test, in the order in which they were made."""
    shutil.copytree(made, ledgers.folder, symlinks=True)
    return sorted(every(ledgers.folder), key=lambda run: run.spec().seed)


def asked(folder, *, config=True):
    """What a process that knows nothing yet is told."""
    return RunIndex(folder, config=config).rows()[0]


def truth(folder, **options):
    """The same without an index, which stays as it is."""
    aside = folder.parent / "aside.sqlite"
    place(folder).rename(aside)
    rows = asked(folder, **options)
    aside.rename(place(folder))
    return rows


@pytest.fixture
def warm(ended, ledgers):
    """Their folder, with an index of all of them."""
    assert len(asked(ledgers.folder)) == len(ended)
    return ledgers.folder


def test_what_has_ended_is_read_once(warm, ended):
    before = asked(warm)
    assert before == truth(warm) and [row.facts["id"] for row in before] == sorted(run.id for run in ended)
    assert [row.config["seed"] for row in before] == [row.facts["step"] - 6 for row in before]
    # A ledger that looks the same is not opened: nothing notices what could not happen to one that only grows.
    ledger = next((ended[0].path / "events").glob("*rank0.jsonl"))
    found = ledger.stat()
    ledger.write_text(ledger.read_text().replace("50.0", "99.0"))
    os.utime(ledger, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert asked(warm) == before
    assert truth(warm) != before
    os.utime(ledger)
    assert asked(warm) == truth(warm) != before


def test_without_the_configs_it_says_the_same(warm):
    assert asked(warm, config=False) == truth(warm, config=False)
    assert [row.facts for row in asked(warm, config=False)] == [row.facts for row in asked(warm)]


def changes(ledgers, runs):
    """name -> something that happens to runs that had ended."""
    first, second, third, fourth, _, sixth, seventh, eighth = runs
    yield "resumed", lambda: ledgers.start(third, "stopped")
    lock = []
    yield "held", lambda: lock.append(third.lock())
    yield "ended again", lambda: (ledgers.end(third, "stopped", "once more"), os.close(lock[0]))
    yield "judged", lambda: ledgers.say(first, "eval", protocol="knn", step=5, scores={"trained": 77.7})
    yield "submitted", lambda: ledgers.submit(second, "7")
    yield "cancelled", lambda: ledgers.say(seventh, "cancel", by=1)
    yield "saved", lambda: ledgers.save(seventh, 90)
    yield "pruned", lambda: shutil.rmtree(seventh.checkpoints()[-1])
    yield "all pruned", lambda: shutil.rmtree(seventh.checkpoints()[0])
    yield "its progress", lambda: ledgers.progress(sixth, 60, loss=0.5)
    moved = dataclasses.replace(sixth.spec(), tasks_per_node=2)
    yield "moved", lambda: sixth.place(moved, kinds.make(moved))
    yield "its spec edited", lambda: (fourth.path / "spec.json").write_text("{}")
    yield "made", lambda: ledgers.create("method=rotnet", "recipe=tiny", "seed=100")
    yield "removed", lambda: shutil.rmtree(eighth.path)
    yield "made again", lambda: ledgers.create("method=rotnet", "recipe=tiny", "seed=7")


def test_it_is_never_stale(warm, ledgers, ended):
    before = asked(warm)
    watching = RunIndex(warm, config=True)  # as `status --watch`, which keeps what it knows
    watching.rows()
    states = set()
    for name, change in changes(ledgers, ended):
        change()
        now = truth(warm)
        assert now != before, f"{name}: nothing happened"
        assert watching.rows()[0] == now, name
        assert asked(warm) == now, name
        before = now
        states |= {row.facts["state"] for row in now}
    assert states >= {"running", "pending", "failed", "done", "cancelled"}


def test_a_run_that_slurm_may_still_start_is_not_remembered_where_nobody_asked_the_queue(warm, ledgers, ended):
    ledgers.submit(ended[0], "7")
    Ledger(ended[0].path, 2, "cancel").write("cancel", by=1, job="7")
    waits = ledgers.create("method=rotnet", "recipe=tiny", "seed=100")
    place(warm).unlink()
    states = {row.facts["id"]: row.facts["state"] for row in asked(warm)}
    assert states[ended[0].id] == "cancelled" and states[waits.id] == "pending"
    known = {name.decode() for (name,) in sqlite3.connect(place(warm)).execute("SELECT name FROM runs")}
    assert known == {waits.id, *(run.id for run in ended[1:])}


def test_a_folder_that_was_moved_says_where_it_is(warm, tmp_path):
    moved = warm.rename(tmp_path / "elsewhere")
    rows = asked(moved)
    assert rows == truth(moved)
    assert all(Path(row.facts["checkpoint"]).is_dir() for row in rows)
    (tmp_path / "linked").symlink_to(moved)
    assert asked(tmp_path / "linked") == rows


def garbage(file):
    content = file.read_bytes()
    yield "gone", file.unlink
    yield "empty", lambda: file.write_bytes(b"")
    yield "no database", lambda: file.write_bytes(b"this is no database" * 1000)
    yield "cut off", lambda: file.write_bytes(content[: len(content) // 2])
    yield "its head alone", lambda: file.write_bytes(content[:100])
    yield "zeros inside", lambda: file.write_bytes(content[:8192] + bytes(8192) + content[16384:])
    yield "a folder", lambda: (file.unlink(), file.mkdir())


def test_an_index_that_is_damaged_is_made_anew(warm):
    file, right = place(warm), asked(warm)
    for name, damage in garbage(file):
        damage()
        assert asked(warm) == right, name
        assert asked(warm) == right, name
        if file.is_dir():
            file.rmdir()
        else:
            assert sqlite3.connect(file).execute("SELECT count(*) FROM runs").fetchone() == (len(right),), name


def test_no_flipped_bit_changes_an_answer(warm):
    file, right = place(warm), asked(warm)
    content, generator = file.read_bytes(), random.Random(0)
    for _ in range(150):
        broken = bytearray(content)
        for spot in generator.sample(range(len(broken)), 8):
            broken[spot] ^= 1 << generator.randrange(8)
        file.write_bytes(broken)
        assert asked(warm) == right
        assert asked(warm) == right


def test_one_that_others_may_write_to_is_not_believed(warm):
    right, memory = asked(warm), IndexFile(place(warm), index._version)
    name, row = next(iter(memory.load(PARTS).items()))
    facts, *others = row.parts
    memory.save({name: dataclasses.replace(row, parts=({**facts, "step": 999}, *others))}, ())
    assert 999 in [each.facts["step"] for each in asked(warm)]  # it is ours: its sums hold
    place(warm).chmod(0o666)
    assert asked(warm) == right


def test_rows_that_another_version_made_are_not_believed(warm):
    right = asked(warm)
    with sqlite3.connect(place(warm)) as database:
        database.execute("PRAGMA user_version = 1")
        database.execute("ALTER TABLE runs RENAME COLUMN facts TO findings")
    assert asked(warm) == right
    assert asked(warm) == right == truth(warm)


def test_a_folder_that_cannot_be_written_is_read_all_the_same(warm, ended, tmp_path):
    right = asked(warm)
    place(warm).unlink()
    there = [path for path in (tmp_path, warm, *warm.rglob("*")) if path.exists()]
    for path in there:  # somebody else may look, and not write
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == os.getuid() and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    try:
        assert as_somebody_else(lambda: asked(warm) == right)
        assert not place(warm).exists()
    finally:
        for path in there:
            path.chmod(0o755)


def as_somebody_else(question):
    """Whether it holds for a process that may not do everything, as root may."""
    child = os.fork()
    if not child:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        os._exit(0 if question() else 1)
    return os.waitpid(child, 0)[1] == 0


def test_one_that_is_busy_is_done_without(warm, ended, ledgers):
    holder = sqlite3.connect(place(warm), isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    ledgers.start(ended[0], "stopped")
    ledgers.end(ended[0], "failed")
    assert asked(warm)[0].facts.keys() and len(asked(warm)) == len(ended)
    holder.execute("ROLLBACK")
    assert asked(warm) == truth(warm)


def test_many_at_once_agree(ended, ledgers):
    command = [sys.executable, "-c", CODE, ledgers.folder]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    answers = [process.communicate()[0] for process in processes]
    assert len(set(answers)) == 1
    assert json.loads(answers[0]) == [row.facts for row in asked(ledgers.folder)]
    count = sqlite3.connect(place(ledgers.folder)).execute("SELECT count(*) FROM runs").fetchone()
    assert count == (len(ended),)


def test_it_is_as_private_as_what_it_holds(warm):
    assert place(warm).stat().st_mode & 0o777 == 0o600


def test_nothing_is_left_where_there_are_no_runs(tmp_path):
    assert asked(tmp_path) == [] == asked(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_what_is_closed_to_the_reader_and_what_leads_nowhere_is_no_run(ended, ledgers, monkeypatch):
    """A colleague's private run, whose files may not even be looked for, and a link to itself."""
    (ledgers.folder / "circle").symlink_to("circle")
    private, look = ledgers.folder / "private", os.stat
    private.mkdir()

    def closed(path, **options):
        if str(path).startswith(f"{private}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return look(path, **options)

    monkeypatch.setattr(os, "stat", closed)
    assert len(asked(ledgers.folder)) == len(ended)
