"""`prune` frees the disk and takes nothing away that a run could still need."""

import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault

LONG_AGO = time.time() - 30 * 86400


@pytest.fixture
def runs(interrupted, tmp_path) -> Path:
    """The folder of the interrupted run, with all that lies beside it."""
    return Path(shutil.copytree(interrupted[0].parent, tmp_path / "runs", symlinks=True))


@pytest.fixture
def run(runs, interrupted) -> Path:
    """A run that stopped, with two checkpoints."""
    found = runs / interrupted[0].name
    # How many a stop leaves depends on the save that was under way.
    for extra in checkpoints(found)[:-2]:
        shutil.rmtree(found / "checkpoints" / extra)
    shutil.rmtree(found / "features", ignore_errors=True)  # where it was stopped in a clustering
    assert len(checkpoints(found)) == 2
    return found


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def flip_a_byte(checkpoint: Path) -> None:
    file = checkpoint / "shared.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def digest(run: Path) -> str:
    """The snapshot of the code that it runs."""
    return (run / "code").resolve().name


def test_the_newest_stays_and_goes_on_to_the_same_end(sslrun, run, undisturbed):
    old, new = checkpoints(run)
    size = sum(file.stat().st_size for file in (run / "checkpoints" / old).iterdir())
    answer = sslrun("prune", run, "-y", "--json")
    assert checkpoints(run) == [new]
    assert answer.json["freed_gb"] == size / 1e9 > 0
    assert [(Path(item["path"]).name, item["bytes"]) for item in answer.json["deleted"]] == [(old, size)]
    assert {"path": str(run / "checkpoints" / new), "why": "verified"} in answer.json["kept"]
    assert f"{size / 1e9:.3f} GB" in answer.err
    sslrun("resume", run)
    assert sslrun.show(run)["state_digest"] == sslrun.show(undisturbed())["state_digest"]
    again = sslrun("prune", run, "-y", "--keep", "9", "--json").json
    assert "checkpoint" not in {item["what"] for item in again["deleted"]}


def test_what_does_not_verify_is_no_reason_to_delete_what_does(sslrun, run):
    old, new = checkpoints(run)
    flip_a_byte(run / "checkpoints" / new)
    answer = sslrun("prune", run, "-y", "--json")
    assert checkpoints(run) == [old, new]
    assert answer.json["deleted"] == []
    assert f"stays: {new}, does not verify (shared.safetensors is not what was written)" in answer.err
    assert f"stays: {old}, verified" in answer.err


def test_nothing_goes_while_no_checkpoint_verifies(sslrun, run):
    """Not even a quarantined one: a run with none at all would begin anew, in silence."""
    old, new = checkpoints(run)
    (run / "checkpoints" / old).rename(run / "checkpoints" / f"broken-{old}-abcd")
    (run / "checkpoints" / new / "shared.safetensors").write_bytes(b"")
    (run / "checkpoints" / ".saving-00000099-abcd").mkdir()
    answer = sslrun("prune", run, "-y")
    assert checkpoints(run) == [f"broken-{old}-abcd", new]
    assert "no checkpoint verifies" in answer.err


def test_leftovers_of_saves_go(sslrun, run):
    old, new = checkpoints(run)
    (run / "checkpoints" / old).rename(run / "checkpoints" / f"broken-{old}-abcd")
    (run / "checkpoints" / ".saving-00000099-abcd").mkdir()
    answer = sslrun("prune", run, "-y", "--json")
    assert checkpoints(run) == [new]
    assert {item["what"] for item in answer.json["deleted"]} == {"quarantined checkpoint", "temporary folder"}


def test_what_another_run_starts_from_goes_and_stays_with_that_one(sslrun, run):
    old, new = checkpoints(run)
    source = f"init_from={run}@{int(old[5:])}"
    other = sslrun("method=rotnet", "recipe=tiny", source, f"runs={run.parent}", "--json").json["id"]
    sslrun("prune", run, "-y")
    assert checkpoints(run) == [new]
    assert (run.parent / other / "pinned" / "init_from" / old / "shared.safetensors").is_file()


def test_code_that_no_run_uses_goes(sslrun, run):
    used, runs = digest(run), run.parent
    code = runs / ".code"
    shutil.copytree(code / used, code / "another_run_s")
    shutil.copytree(code / used, code / "nobody_s")
    shutil.copytree(code / used, code / "an_array_s")
    (runs / ".arrays" / "token").mkdir(parents=True)
    (runs / ".arrays" / "token" / "code").symlink_to("../../another-run/code")
    shutil.copytree(run, runs / "another-run", symlinks=True)
    (runs / "another-run" / "code").unlink()
    (runs / "another-run" / "code").symlink_to("../.code/another_run_s")
    (runs / ".arrays" / "other").mkdir()
    (runs / ".arrays" / "other" / "code").symlink_to("../../.code/an_array_s")
    (code / ".half-written.123").mkdir()
    (code / ".damaged.123").mkdir()
    os.utime(code / ".damaged.123", (LONG_AGO, LONG_AGO))
    sslrun("prune", run, "-y")
    assert {path.name for path in code.iterdir()} == {used, "another_run_s", "an_array_s", ".half-written.123"}


def test_submissions_of_long_ago_go(sslrun, run, tmp_path):
    sslrun = sslrun.where(SLURM_CONF=str(tmp_path / "nowhere"))  # whatever cluster this machine may belong to
    for folder in (run / "submit", run.parent / ".arrays" / "token"):
        folder.mkdir(parents=True)
        (folder / "script.sh").write_text("#!/bin/bash\n")
    sslrun("prune", run, "-y")
    assert (run / "submit").exists()
    for folder in (run / "submit", run.parent / ".arrays" / "token"):
        for path in (folder / "script.sh", folder):
            os.utime(path, (LONG_AGO, LONG_AGO))
    answer = sslrun("prune", run, "-y")
    assert not (run / "submit").exists()
    # Nobody can say whether jobs of the array still wait: no controller answers.
    assert (run.parent / ".arrays" / "token").exists()
    assert "submissions of arrays stay" in answer.err


def test_a_run_that_is_running_is_left_alone(sslrun, one_line, run):
    before = checkpoints(run)
    with (run / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        line = one_line(sslrun("prune", run, code=2))
    assert f"RUN={run.name}: it is running" in line
    assert checkpoints(run) == before


def test_a_run_that_slurm_may_start_any_moment_is_left_alone(sslrun, one_line, run):
    before = checkpoints(run)
    row = {
        "event": "submitted",
        "generation": 2,
        "writer": "submit",
        "host": "login",
        "number": 1,
        "job": "7",
        "folder": "/x",
        "time": 0,
    }
    (run / "events" / "0002-submit.jsonl").write_text(json.dumps(row) + "\n")
    line = one_line(sslrun("prune", run, code=2))
    assert "it is pending as job 7" in line
    assert "sslrun cancel" in line
    assert checkpoints(run) == before


@pytest.mark.parametrize("keep", ["0", "-1", "many"])
def test_at_least_one_stays(sslrun, one_line, run, keep):
    assert "--keep" in one_line(sslrun("prune", run, "--keep", keep, code=2))
    assert len(checkpoints(run)) == 2


def test_where_nobody_can_be_asked_nothing_goes_unless_told(sslrun, run):
    line = "sslrun: --yes: nothing is deleted unasked, and nobody is here to be asked; add --yes"
    assert sslrun("prune", run, code=2).complaint == line
    assert len(checkpoints(run)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="pseudo-terminals differ")
@pytest.mark.parametrize("word", ["y", "n", ""])
def test_on_a_terminal_it_asks_first(sslrun, run, word):
    import pty
    import subprocess

    parent, child = pty.openpty()
    command = [Path(sys.executable).with_name("sslrun"), "prune", str(run)]
    process = subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=sslrun.environment, cwd=run)
    os.close(child)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(parent, 1000)
    assert b"GB can go" in said
    assert len(checkpoints(run)) == 2
    os.write(parent, f"{word}\n".encode())
    assert process.wait() == (0 if word == "y" else 130)
    os.close(parent)
    assert len(checkpoints(run)) == (1 if word == "y" else 2)


def test_what_cannot_be_deleted_is_said_in_one_line(sslrun, one_line, run):
    if os.geteuid() == 0:
        pytest.skip("root may delete everything")
    (run / "checkpoints").chmod(0o500)
    try:
        line = one_line(sslrun("prune", run, code=2), inside=True)
    finally:
        (run / "checkpoints").chmod(0o700)
    assert "cannot be deleted" in line
