"""What can go from a run's folder, what stays and why: found file by file, and deleted in an order that is safe."""

import os
import shutil
import time
from pathlib import Path

import pytest
import recorded

from launcher.errors import InputError
from launcher.run import pruning
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.manifest import digest, sha256
from launcher.run.pruning import CHECKPOINT, CODE, QUARANTINED, SUBMISSION, TEMPORARY
from launcher.slurm import commands

DAY = 86400.0
DOWN = "Slurmctld(primary) at login is DOWN\n"


@pytest.fixture
def run(fresh, ledgers) -> RunDir:
    ledgers.start(fresh)
    return fresh


def save(run: RunDir, *steps: int) -> list[Path]:
    """Checkpoints that verify, of 100 bytes and a manifest."""
    saved = []
    for step in steps:
        path = run.path / "checkpoints" / f"step_{step:08d}"
        path.mkdir()
        file = path / "shared.safetensors"
        file.write_bytes(bytes([step]) * 100)
        files = {file.name: {"size": 100, "sha256": sha256(file)}}
        write_json(path / "manifest.json", {"step": step, "steps": 100, "digest": digest(files), "files": files})
        saved.append(path)
    return saved


def spoil(checkpoint: Path) -> None:
    (checkpoint / "shared.safetensors").write_bytes(100 * b"?")


def age(days: float, *paths: Path) -> None:
    then = time.time() - days * DAY
    for path in paths:
        os.utime(path, (then, then), follow_symlinks=False)


def make(folder: Path, *files: str, days: float = 0.0) -> Path:
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text("content")
    age(days, *(folder / file for file in files), folder)
    return folder


def doomed(run: RunDir, keep: int = 1) -> dict[str, str]:
    """What would go: the path inside the folder of runs -> its kind."""
    found = pruning.find(run, keep, commands.jobs)
    return {str(item.path.relative_to(run.runs)).removeprefix(f"{run.id}/"): item.what for item in found.doomed}


def kept(run: RunDir, keep: int = 1) -> dict[str, str]:
    return {path.name: why for path, why in pruning.find(run, keep, commands.jobs).kept.items()}


STEPS = [f"step_{step:08d}" for step in (0, 10, 20, 30, 40)]
BROKEN = "does not verify (shared.safetensors is not what was written); `sslrun resume` sets it aside"

# -- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_the_newest_that_verify_stay(run, keep):
    save(run, 10, 20, 30)
    stay = STEPS[1:4][-keep:]
    assert kept(run, keep) == dict.fromkeys(stay, "verified")
    assert doomed(run, keep) == {f"checkpoints/{name}": CHECKPOINT for name in STEPS[1:4] if name not in stay}


def test_the_size_is_that_of_all_files(run):
    old, _ = save(run, 10, 20)
    (item,) = pruning.find(run, 1, commands.jobs).doomed
    assert item.path == old
    assert item.size == sum(file.stat().st_size for file in old.iterdir()) > 100


def test_a_newer_one_that_does_not_verify_stays_and_counts_for_none(run):
    save(run, 10, 20)
    spoil(*save(run, 30))
    assert kept(run) == {STEPS[2]: "verified", STEPS[3]: BROKEN}
    assert doomed(run) == {f"checkpoints/{STEPS[1]}": CHECKPOINT}


def test_an_older_one_that_does_not_verify_goes(run):
    save(run, 10)
    spoil(*save(run, 20))
    save(run, 30)
    assert kept(run, 2) == {STEPS[1]: "verified", STEPS[3]: "verified"}
    assert doomed(run, 2) == {f"checkpoints/{STEPS[2]}": CHECKPOINT}


@pytest.mark.parametrize("what", ["a broken one", "a quarantined one", "both"])
def test_none_goes_while_none_verifies(run, what):
    folder = run.path / "checkpoints"
    if what != "a quarantined one":
        spoil(*save(run, 10))
    if what != "a broken one":
        make(folder / f"broken-{STEPS[1]}-abcd")
    make(folder / ".saving-00000020-abcd")
    found = pruning.find(run, 1, commands.jobs)
    assert found.notes == ["no checkpoint verifies, so all of them stay, also the quarantined ones"]
    assert doomed(run) == {"checkpoints/.saving-00000020-abcd": TEMPORARY}  # was never one
    save(run, 30)
    assert pruning.find(run, 1, commands.jobs).notes == []
    assert doomed(run).keys() - {"checkpoints/.saving-00000020-abcd"} == {
        f"checkpoints/{path.name}" for path in folder.iterdir() if path.name[0] != "." and path.name != STEPS[3]
    }


def test_of_a_run_that_saved_nothing_there_is_nothing_to_say(run):
    found = pruning.find(run, 1, commands.jobs)
    assert (found.doomed, found.kept, found.notes) == ([], {}, [])


def test_leftovers_go(run):
    save(run, 10)
    make(run.path / "checkpoints" / f"broken-{STEPS[1]}-abcd", "file")
    make(run.path / "checkpoints" / ".saving-00000020-abcd", "file")
    assert doomed(run) == {
        f"checkpoints/broken-{STEPS[1]}-abcd": QUARANTINED,
        "checkpoints/.saving-00000020-abcd": TEMPORARY,
    }
    assert [item.size for item in pruning.find(run, 1, commands.jobs).doomed] == [7, 7]


def test_what_a_run_made_before_there_were_pins_starts_from_stays(run, tmp_path):
    old, older, taught, newest = save(run, 10, 20, 30, 40)
    (tmp_path / "link").symlink_to(run.path)  # the same folder by another way
    for name, source in (
        ("other", {"path": str(tmp_path / "link" / "checkpoints" / old.name)}),
        ("another", {"path": str(tmp_path / "elsewhere" / "checkpoints" / older.name)}),
        ("none", None),
    ):
        write_json(make(run.runs / name) / "spec.json", {"init_from": source})
    teacher = {"path": str(run.path / "checkpoints" / taught.name), "digest": "", "backbone": "small_vgg"}
    method = {"name": "distilled", "more": {}, "teacher": teacher}
    write_json(make(run.runs / "pupil") / "spec.json", {"init_from": None, "method": method})
    pinned = {"init_from": {"path": str(run.path / "checkpoints" / older.name)}}
    write_json(make(run.runs / "since then" / "pinned").parent / "spec.json", pinned)
    (make(run.runs / "damaged") / "spec.json").write_text("{")
    (make(run.runs / "a list") / "spec.json").write_text("[]")
    assert kept(run) == {
        old.name: "other starts from it (init_from)",
        taught.name: "pupil uses it (method.teacher)",
        newest.name: "verified",
    }
    assert doomed(run) == {f"checkpoints/{older.name}": CHECKPOINT}


@pytest.mark.parametrize(
    ("state", "stays"),
    [("", True), ("stopped", True), ("preempted", True), ("done", False), ("failed", False), ("cancelled", False)],
)
def test_what_an_evaluation_waits_for_stays(run, ledgers, state, stays):
    save(run, 10, 20, 30)
    evaluation = RunDir(make(run.path / "evals" / "knn-1" / "events").parent)
    write_json(evaluation.path / "eval.json", {"step": 10})
    newest = make(run.path / "evals" / "knn-2")
    write_json(newest / "eval.json", {"step": None})  # takes what is the newest by then
    (make(run.path / "evals" / "knn-3") / "eval.json").write_text("{")
    if state:
        ledgers.start(evaluation)
        ledgers.end(evaluation, state)
    whys = {STEPS[1]: f"{run.id}/evals/knn-1 has not ended"} if stays else {}
    assert kept(run) == {**whys, STEPS[3]: "verified"}
    assert len(doomed(run)) == (1 if stays else 2)


# -- work between two steps ------------------------------------------------------------------------------------------


def test_features_are_of_use_until_a_checkpoint_of_a_later_step(run):
    for step in STEPS[1:4]:
        make(run.path / "features" / step)
    make(run.path / "features" / f".gone-{STEPS[0]}")
    why = "features of a clustering with which `sslrun resume` goes on"
    gone = {f"features/.gone-{STEPS[0]}": TEMPORARY}
    assert (kept(run), doomed(run)) == (dict.fromkeys(STEPS[1:4], why), gone)
    save(run, 10, 20)
    found = pruning.find(run, 2, commands.jobs)
    assert {path.name for path, said in found.kept.items() if said == why} == set(STEPS[2:4])
    assert doomed(run, 2) == {**gone, f"features/{STEPS[1]}": TEMPORARY}


def test_so_is_what_a_probe_made_at_a_step(run):
    for step in STEPS[1:3]:
        make(run.path / "features" / f"{step}-002")
    save(run, 10, 20)
    found = pruning.find(run, 2, commands.jobs)
    why = "features of a probe with which `sslrun resume` goes on"
    assert {path.name for path, said in found.kept.items() if said == why} == {f"{STEPS[2]}-002"}
    assert doomed(run, 2) == {f"features/{STEPS[1]}-002": TEMPORARY}


# -- code ------------------------------------------------------------------------------------------------------------

USERS = ("run/code", "run/submit/code", "run/evals/knn-1/code", "run/evals/knn-1/submit/code", ".arrays/token/code")


def use(run: RunDir, digest: str, user: str) -> Path:
    link = run.runs / user
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(run.runs / ".code" / digest)
    return link


@pytest.mark.parametrize("user", USERS)
def test_code_that_somebody_uses_stays(run, user):
    make(run.runs / ".code" / "used", "a.py", days=99)
    make(run.runs / ".code" / "unused", "a.py", days=99)
    use(run, "used", user)
    assert doomed(run) == {".code/unused": CODE}


def test_a_half_written_copy_goes_after_a_day(run):
    code = run.runs / ".code"
    make(code / ".new.123", "a.py", days=0.9)
    make(code / ".old.123", "a.py", days=1.1)
    file = make(code / ".growing.123", "a.py", days=1.1) / "a.py"
    age(0.9, file)
    assert doomed(run) == {".code/.old.123": CODE}


@pytest.fixture
def meanwhile(monkeypatch):
    """`meanwhile(do)`: what somebody else does between the two looks, where nothing is waited for. A stand-in for a
    submitter that looked a moment before: a real one would have to meet that moment."""

    def during(do=lambda: None) -> None:
        monkeypatch.setattr(pruning.time, "sleep", lambda seconds: do())

    during()
    return during


def test_unused_code_is_deleted(run, meanwhile):
    folder = make(run.runs / ".code" / "unused", "a.py")
    leftover = make(run.runs / ".code" / ".old.123", days=2)
    items = pruning.find(run, 1, commands.jobs).doomed
    assert pruning.delete(items, run.runs) == items
    assert not folder.exists() and not leftover.exists()
    assert list((run.runs / ".code").iterdir()) == []


def test_code_that_somebody_has_begun_to_use_comes_back(run, meanwhile):
    folder = make(run.runs / ".code" / "taken", "a.py")
    make(run.runs / ".code" / "unused", "a.py")
    items = pruning.find(run, 1, commands.jobs).doomed
    meanwhile(lambda: use(run, "taken", "run/code"))
    assert [item.path.name for item in items] == ["taken", "unused"]
    assert [item.path.name for item in pruning.delete(items, run.runs)] == ["unused"]
    assert [path.name for path in folder.parent.iterdir()] == ["taken"]
    assert (folder / "a.py").read_text() == "content"


def test_code_that_somebody_took_anew_is_theirs(run, meanwhile):
    folder = make(run.runs / ".code" / "taken", "old.py")

    def take() -> None:
        make(folder, "new.py")
        use(run, "taken", "run/code")

    items = pruning.find(run, 1, commands.jobs).doomed
    meanwhile(take)
    assert pruning.delete(items, run.runs) == items != []
    assert [path.name for path in folder.iterdir()] == ["new.py"]
    assert [path.name for path in folder.parent.iterdir()] == ["taken"]


# -- submissions -----------------------------------------------------------------------------------------------------


def test_a_submission_goes_after_a_week(run):
    for days in (6.9, 7.1):
        shutil.rmtree(run.path / "submit", ignore_errors=True)
        folder = make(run.path / "submit", "script.sh", "slurm-7.log", days=days)
        assert doomed(run) == ({"submit": SUBMISSION} if days > 7 else {})
    age(1.0, folder / "slurm-7.log")  # its job wrote yesterday
    assert doomed(run) == {}


def test_a_submission_is_as_large_as_its_files_and_links(run):
    folder = make(run.path / "submit", "script.sh")
    make(folder / "deeper", "slurm-7.log")
    (folder / "code").symlink_to("../code")
    age(99, folder / "code", folder / "deeper", folder / "deeper" / "slurm-7.log", folder / "script.sh", folder)
    (item,) = pruning.find(run, 1, commands.jobs).doomed
    assert (item.path, item.size) == (folder, len("content") * 2 + len("../code"))


def test_a_submission_that_nobody_completed_stays(run):
    make(run.path / "submit", "script.sh", days=99)
    pen = Ledger(run.path, 2, "submit")
    pen.write("intent", token="token", index=None, folder="/nowhere")
    assert doomed(run) == {}
    pen.write("withdrawn", token="token")
    assert doomed(run) == {"submit": SUBMISSION}


def test_submissions_of_arrays_go_unless_their_jobs_wait(run, slurm_said):
    for token, days in (("token7", 99.0), ("token8", 99.0), ("token9", 1.0)):
        make(run.runs / ".arrays" / token, "script.sh", days=days)
    slurm_said.says("squeue", recorded.table(recorded.JOBS))  # of token7
    assert doomed(run) == {".arrays/token8": SUBMISSION}
    slurm_said.says("scontrol ping", DOWN)
    found = pruning.find(run, 1, commands.jobs)
    assert found.doomed == []
    (note,) = found.notes
    assert note.startswith("submissions of arrays stay, their jobs may still be in the queue: squeue: slurmctld")


def test_where_there_are_none_the_queue_is_not_asked(run, slurm_said):
    make(run.runs / ".arrays" / "token", "script.sh", days=1.0)
    assert doomed(run) == {}
    assert not slurm_said.asked


# -- deleting --------------------------------------------------------------------------------------------------------


def test_what_was_found_is_deleted_and_nothing_else(run, meanwhile):
    save(run, 10, 20)
    make(run.path / "checkpoints" / f"broken-{STEPS[1]}-abcd", "file")
    make(run.path / "submit", "script.sh", days=99)
    items = pruning.find(run, 1, commands.jobs).doomed
    meanwhile(lambda: pytest.fail("no code is among it, so there is nothing to wait for"))
    assert len(pruning.delete(items, run.runs)) == len(items) == 3
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == [STEPS[2]]
    assert not (run.path / "submit").exists()
    assert pruning.find(run, 1, commands.jobs).doomed == []


def test_a_checkpoint_that_is_half_deleted_is_not_taken_for_one(run, monkeypatch):
    """A stand-in for a file system that refuses: root, who may run this, is never refused."""
    old, new = save(run, 10, 20)

    def refuse(path: str, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(InputError) as refused:
        pruning.delete(pruning.find(run, 1, commands.jobs).doomed, run.runs)
    aside = old.with_name(f".saving-pruned-{old.name}")
    words = f"runs={aside}: cannot be deleted (Permission denied); make it writable, and prune again"
    assert str(refused.value) == words
    assert run.checkpoints() == [new]
    assert doomed(run) == {f"checkpoints/{aside.name}": TEMPORARY}  # and goes next time
