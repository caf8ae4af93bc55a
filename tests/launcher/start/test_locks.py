"""That a file cannot be locked at all is not that somebody has it: Lustre that is mounted without -o flock, say."""

import errno
import os

import pytest

from launcher.errors import InputError
from launcher.run import files
from launcher.start import batch, local, submit

WAYS = {
    "a run here": lambda runs, run: local.run(run, runs.spec(), cause="submitted", watch=None),
    "a look": lambda runs, run: run.state(),
    "a submission": lambda runs, run: submit.submit([run]),
    "a move": lambda runs, run: submit.move(run, runs.spec(), runs.plan),
}


def refused_with(monkeypatch, number: int) -> None:
    def flock(*_) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", flock)


@pytest.mark.parametrize("way", WAYS)
def test_one_line_says_that_there_are_no_locks(way, runs, slurm_said, monkeypatch):
    run = runs.make()
    (run.path / "lock").touch()
    refused_with(monkeypatch, errno.ENOSYS)
    with pytest.raises(InputError, match=r"no file can be locked there \(Function not implemented\); choose another"):
        WAYS[way](runs, run)
    assert not runs.told(run, "intent", "start")


def test_a_job_ends_with_that_line(runs, job, monkeypatch, capsys):
    run = runs.make()
    refused_with(monkeypatch, errno.ENOLCK)
    with pytest.raises(SystemExit) as ended:
        batch.main(str(run.path))
    assert ended.value.code == 2
    assert capsys.readouterr().out.startswith(f"sslrun: runs={runs.folder}: no file can be locked there (No locks")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EACCES])
def test_what_says_that_somebody_has_it_still_does(number, runs, monkeypatch):
    run = runs.make()
    (run.path / "lock").touch()
    monkeypatch.setattr("time.sleep", lambda _: None)
    refused_with(monkeypatch, number)
    assert run.held() and run.lock() is None
