"""A folder that somebody else could write to starts nothing: what runs is the user's own, and is what was looked at."""

import os
from argparse import Namespace

import pytest

from launcher.errors import InputError
from launcher.run import snapshot
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.start import batch, local, submit
from launcher.start.allocation import Allocation
from launcher.start.standby import Standby
from launcher.start.told import Told
from launcher.start.understudy import Understudy
from launcher.verbs import drill, drive

pytestmark = pytest.mark.fault

STRANGER = 65534
NOT_YOURS = f"belongs to user {STRANGER}, not to you"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")


@pytest.fixture
def swapped(runs, monkeypatch):
    """A run whose link to the code leads elsewhere right after the code was looked at, as somebody could have it who
    writes in the folder too; and its code."""
    run, look = runs.make(), snapshot.verify

    def verify(folder, digest):
        found = look(folder, digest)
        (run.path / "code").unlink()
        (run.path / "code").symlink_to(runs.other_code(runs.folder / ".code" / "other").path)
        return found

    monkeypatch.setattr(snapshot, "verify", verify)
    return run, runs.code.path


def test_ranks_here_run_the_code_that_was_looked_at(swapped, monkeypatch):
    run, code = swapped
    seen = []

    def start(command, env, **_):
        seen.append(env["PYTHONPATH"].split(os.pathsep)[0])
        raise InterruptedError

    monkeypatch.setattr(local.subprocess, "Popen", start)
    with pytest.raises(InterruptedError):
        local.run(run, run.spec(), cause="submitted", watch=None)
    assert seen == [str(code)]


def test_ranks_of_a_job_run_the_code_that_was_looked_at(swapped, job, ends_of, tmp_path, monkeypatch):
    run, code = swapped
    job.srun(f'echo "$PYTHONPATH" > {tmp_path}/seen', look="echo n1 is n1")
    monkeypatch.setenv("PYTHONPATH", f"{run.path}/submit/code:/site")
    ends_of(run)
    assert (tmp_path / "seen").read_text().strip() == f"{code}:/site"


@as_root
@pytest.mark.parametrize("theirs", ["the snapshot", "the folder of snapshots"])
def test_code_that_others_can_exchange_is_not_run(runs, theirs):
    run = runs.make()
    os.chown(runs.code.path if theirs == "the snapshot" else runs.code.path.parent, STRANGER, STRANGER)
    with pytest.raises(InputError, match=NOT_YOURS):
        local.run(run, run.spec(), cause="submitted", watch=None)
    assert not run.generation()


@as_root
@pytest.mark.parametrize("kind", ["local", "slurm"])
def test_nothing_of_somebody_elses_run_is_run(runs, job, kind):
    run = runs.make(kind=kind)
    os.chown(run.path, STRANGER, STRANGER)
    here = batch.Lasting(Told(), Allocation(), Understudy(), Standby())
    for start in (
        lambda: drive.go_on(run, Namespace(), joined=True),
        lambda: local.run(run, run.spec(), cause="submitted", watch=None),
        lambda: submit.submit([run]),
        lambda: batch._work(run, run.spec(), ["n1"], Ledger(run.path, 1, "batch"), here),
    ):
        with pytest.raises(InputError, match=f"runs={runs.folder}: {run.id} {NOT_YOURS}"):
            start()
    assert not run.history().all("start", "submitted")


@as_root
def test_no_array_is_submitted_from_a_folder_that_somebody_else_has_laid(runs, slurm_said):
    several = [runs.make(seed=1), runs.make(seed=2)]
    (runs.folder / ".arrays").mkdir()
    os.chown(runs.folder / ".arrays", STRANGER, STRANGER)
    with pytest.raises(InputError, match=rf"\.arrays {NOT_YOURS}"):
        submit.submit(several)
    assert not slurm_said.commands("sbatch") and not any((runs.folder / ".arrays").iterdir())


@as_root
@pytest.mark.parametrize("theirs", ["the run", "the folder of drills"])
def test_nothing_is_drilled_as_somebody_else_has_it(runs, theirs):
    run, folder = runs.make(python="/theirs"), runs.folder / ".drills" / "one"
    folder.parent.mkdir()
    os.chown(run.path if theirs == "the run" else folder.parent, STRANGER, STRANGER)
    with pytest.raises(InputError, match=NOT_YOURS):
        drill._like(run.id, runs.folder, folder, None)
    assert not any(folder.parent.iterdir())


@as_root
@pytest.mark.parametrize("laid", ["the run", "a folder of it", "a link in its place", "a link in the run"])
def test_no_run_is_made_in_a_folder_that_somebody_else_has_laid(runs, tmp_path, laid):
    spec = runs.spec()
    place = runs.folder / spec.run_id
    if laid in ("a folder of it", "a link in the run"):
        place.mkdir()
        place /= "checkpoints"
    if laid.startswith("a link"):
        place.symlink_to(tmp_path)
    else:
        place.mkdir()
    os.chown(place, STRANGER, STRANGER, follow_symlinks=False)
    before = tmp_path.stat().st_mode
    with pytest.raises(InputError, match=f"{place.name} {NOT_YOURS}; choose a folder of your own"):
        RunDir(runs.folder / spec.run_id).create(spec, runs.plan, lambda: runs.code)
    assert not list(runs.folder.glob("*/spec.json")) and tmp_path.stat().st_mode == before
