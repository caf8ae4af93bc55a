"""What the queue adds to a run's ledger: asked once and only where a job may be, and what became of a lost one."""

import os
import shutil
from pathlib import Path

import pytest
import recorded

from launcher.errors import InputError
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.slurm import badnodes, commands, queue
from launcher.slurm.queue import Lost

DOWN = "Slurmctld(primary) at login is DOWN\n"
REQUEUED = {"state": "preempted", "cause": "preempted", "message": "told to stop", "requeued": True}


@pytest.fixture
def run(fresh) -> RunDir:
    return fresh


@pytest.fixture
def squeue(slurm_said):
    """A queue that holds the array 3, of which a task runs, and the jobs 2, held, and 4, running."""
    slurm_said.says("squeue --noheader --array --user=", recorded.table(recorded.JOBS))
    return slurm_said


# -- asking ----------------------------------------------------------------------------------------------------------


def test_the_queue_is_asked_once_for_many_runs(run, ledgers, squeue):
    ledgers.submit(run, "3_1")
    jobs, trouble = queue.of_runs([run] * 5)
    assert sorted(jobs) == ["2", "3_0", "3_1", "3_2", "4"] and trouble == ""
    assert (jobs["3_1"].state, jobs["3_1"].comment) == ("PENDING", "sslrun:token7")
    assert len(squeue.commands("squeue")) == 1


def test_since_when_a_job_is_suspended_is_asked_where_one_is(slurm_said):
    before, _, after = recorded.JOBS.rpartition("RUNNING")
    slurm_said.says("squeue", recorded.table(f"{before}SUSPENDED{after}"))
    slurm_said.says("scontrol show job -o 4", recorded.SUSPENDED_4, recorded.FORGOTTEN)
    slurm_said.says("sacct", recorded.NO_ACCOUNTING)
    jobs = commands.jobs()
    assert (jobs["4"].state, jobs["4"].suspended) == ("SUSPENDED", "2026-11-28T18:23:14")
    assert jobs["3_0"].suspended is None
    assert commands.jobs()["4"].suspended == "unknown"  # it went meanwhile
    went_on = recorded.SUSPENDED_4.replace("JobState=SUSPENDED", "JobState=RUNNING")  # SuspendTime stays, in Slurm
    slurm_said.says("scontrol show job -o 4", went_on)
    assert commands.ended("4").suspended is None


@pytest.mark.parametrize("what", ["never started", "started here", "done", "cancelled", "unreadable", "no ledger"])
def test_where_no_run_can_have_a_job_nobody_asks(run, ledgers, slurm_said, what):
    if what == "started here":
        ledgers.start(run)
    elif what in ("done", "cancelled"):
        ledgers.submit(run, "7")
        ledgers.start(run, job="7")
        ledgers.end(run, what)
    elif what == "unreadable":
        (run.path / "events" / "0001-launcher.jsonl").write_text("7\n")
    elif what == "no ledger":
        shutil.rmtree(run.path / "events")
    assert queue.of_runs([run]) == (None, "")
    assert not slurm_said.asked


@pytest.mark.parametrize("what", ["waiting", "running", "requeued"])
def test_where_one_run_may_have_a_job_it_is_asked_for(run, ledgers, squeue, what, tmp_path):
    damaged = RunDir(shutil.copytree(run.path, tmp_path / "damaged", symlinks=True))
    (damaged.path / "events" / "0001-launcher.jsonl").write_text('{"generation": 1}\n')
    ledgers.submit(run, "4")
    if what != "waiting":
        ledgers.start(run, job="4")
    if what == "requeued":
        Ledger(run.path, 1, "launcher").write("end", **REQUEUED)
    assert queue.of_runs([damaged, run])[0] is not None


def test_a_controller_that_is_down_is_said_and_not_waited_for(run, ledgers, slurm_said):
    slurm_said.says("scontrol ping", DOWN)
    ledgers.submit(run, "7")
    jobs, trouble = queue.of_runs([run])
    assert jobs is None
    assert "slurmctld does not answer" in trouble and trouble.endswith(": states are the ledgers' last word")


# -- one writer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["3_1", "4"])
def test_a_run_that_a_job_has_takes_no_second_writer(run, ledgers, squeue, job):
    ledgers.submit(run, job)
    with pytest.raises(InputError) as refused:
        queue.refuse_second_writer(run)
    words = f"RUN={run.id}: job {job} has it, and a run has one writer; `sslrun cancel {run.path}` takes it back"
    assert str(refused.value) == words


def test_nor_does_one_that_slurm_will_start_again(run, ledgers, squeue):
    ledgers.submit(run, "2")
    ledgers.start(run, job="2")
    with pytest.raises(InputError, match="job 2 has it"):  # killed, and waiting
        queue.refuse_second_writer(run)
    Ledger(run.path, 1, "launcher").write("end", **REQUEUED)
    with pytest.raises(InputError, match="job 2 has it"):
        queue.refuse_second_writer(run)


def test_nor_does_one_whose_job_nobody_can_ask_about(run, ledgers, slurm_said):
    slurm_said.says("scontrol ping", DOWN)
    ledgers.submit(run, "7")
    with pytest.raises(InputError, match="job 7 has it"):
        queue.refuse_second_writer(run)


def test_nor_does_one_that_a_process_holds(run, ledgers):
    ledgers.start(run)
    lock = run.lock()
    try:
        with pytest.raises(InputError, match=f"process {os.getpid()} on .* runs it"):
            queue.refuse_second_writer(run)
    finally:
        os.close(lock)
    queue.refuse_second_writer(run)


@pytest.mark.parametrize("what", ["gone", "gone, after a requeue", "done", "never started"])
def test_a_run_that_nobody_has_takes_one(run, ledgers, squeue, what):
    if what != "never started":
        ledgers.submit(run, "7")
    if what in ("done", "gone, after a requeue"):
        ledgers.start(run, job="7")
        done = {"state": "done", "cause": "done", "message": ""}
        Ledger(run.path, 1, "launcher").write("end", **(done if what == "done" else REQUEUED))
    queue.refuse_second_writer(run)


# -- a job that is gone ----------------------------------------------------------------------------------------------


@pytest.fixture
def submission(run, tmp_path, slurm_said) -> Path:
    """The folder in which the run's jobs leave their logs; Slurm knows nothing of them any more."""
    slurm_said.says("scontrol show job -o", recorded.FORGOTTEN)
    slurm_said.says("sacct", recorded.NO_ACCOUNTING)
    folder = tmp_path / "submission"
    folder.mkdir()
    return folder


def log(submission: Path, *lines: str, job: str = "7") -> Path:
    file = submission / f"slurm-{job}.log"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_what_the_batch_script_said_is_why(run, ledgers, submission):
    ledgers.submit(run, "7", submission)
    log(submission, "sslrun: first", "module: not found", "sslrun: the code is gone", "srun: sslrun: no", job="7")
    log(submission, "sslrun: another job's", job="70")
    assert queue.lost(run) == Lost("the code is gone")
    assert queue.last_words(run) == "the code is gone"


def test_a_node_that_lacks_what_others_have_is_to_blame(run, ledgers, submission, tmp_path, monkeypatch):
    python = tmp_path / "a python"
    python.touch()
    ledgers.submit(run, "7", submission)
    said = f"n2 has no {python}; install it there, or name one that is in cluster.python"
    log(submission, f"sslrun: {said}")
    assert queue.lost(run) == Lost(said, "n2", f"has no {python}")
    monkeypatch.setattr(os, "getuid", lambda: submission.stat().st_uid + 1)  # whose folder it is says nothing of that
    assert queue.lost(run).node == "n2"
    python.unlink()  # nobody has it
    assert queue.lost(run) == Lost(said)


def test_a_node_that_does_not_see_a_folder_of_ones_own_is_to_blame(run, ledgers, submission, monkeypatch):
    ledgers.submit(run, "7", submission)
    said = f"n2 has no {submission} of yours; choose a folder that all nodes share with runs=PATH"
    log(submission, f"sslrun: {said}")
    assert queue.lost(run) == Lost(said, "n2", f"has no {submission}")
    monkeypatch.setattr(os, "getuid", lambda: submission.stat().st_uid + 1)  # giving a folder away takes root
    assert queue.lost(run) == Lost(said)


def test_a_node_is_to_blame_also_for_a_later_start(run, ledgers, submission):
    ledgers.submit(run, "7", submission)
    ledgers.start(run, job="7")
    Ledger(run.path, 1, "launcher").write("end", **REQUEUED)
    log(submission, "sslrun: told to stop", f"sslrun: n2 has no {submission}; install it there")
    assert queue.lost(run).node == "n2"


def test_setup_that_failed_where_no_python_could_write_it_down_is_said(run, ledgers, submission, slurm_said):
    slurm_said.says("scontrol show job -o 6", recorded.FAILED_6)
    ledgers.submit(run, "6", submission)
    ledgers.start(run, job="6")
    Ledger(run.path, 1, "launcher").write("end", **REQUEUED)
    said = "n1: cluster.setup[0] `module load x` ended with 1: no modules"
    log(submission, "== start 1", "sslrun: told to stop", f"sslrun: {said}", "python: no library", job="6")
    assert queue.lost(run) == Lost(said)
    file = log(submission, f"sslrun: {said}", "== start 2", "Killed", job="6")  # it was over
    assert queue.last_words(run).endswith(f"; the last line of {file}: Killed")


def test_slurm_says_how_it_ended(run, ledgers, submission, slurm_said):
    slurm_said.says("scontrol show job -o 6", recorded.FAILED_6)
    ledgers.submit(run, "6", submission)
    said = "job 6 ended before the run began: FAILED, exit code 3:0, on n1"
    assert queue.lost(run) == Lost(said)
    file = log(submission, "", "  /bin/sh: no such module" + 300 * "!", "", job="6")
    assert queue.lost(run) == Lost(f"{said}; the last line of {file}: /bin/sh: no such module{277 * '!'}")
    ledgers.start(run, job="6")
    file.write_text("sslrun: what it said while it ran\nKilled\n")
    said = "job 6 ended without a word: FAILED, exit code 3:0, on n1"
    assert queue.lost(run) == Lost(f"{said}; the last line of {file}: Killed")


def test_a_log_may_hold_what_is_no_text(run, ledgers, submission):
    ledgers.submit(run, "7", submission)
    log(submission).write_bytes(b"\xff\xfe\nsslrun: \xe9 is gone\n")
    assert queue.lost(run) == Lost("\N{REPLACEMENT CHARACTER} is gone")


def test_a_job_that_got_no_node(run, ledgers, submission, slurm_said):
    slurm_said.says("scontrol show job -o 2", recorded.CANCELLED_2)
    ledgers.submit(run, "2", submission)
    assert queue.lost(run) == Lost("job 2 ended before the run began: CANCELLED, exit code 0:0")


def test_a_first_node_that_cannot_open_the_log_is_to_blame(run, ledgers, submission, slurm_said):
    slurm_said.says("scontrol show job -o 1", recorded.UNOPENED_1)
    ledgers.submit(run, "1", submission)
    why = f"could not open its log: it does not see {submission}, or cannot write there"
    words = f"job 1: its first node, n1, {why}; choose a folder that all nodes share with runs=PATH"
    assert queue.lost(run) == Lost(words, "n1", f"could not open a log in {submission}")


def test_a_job_that_waits_again_is_not_lost(run, ledgers, submission, slurm_said):
    slurm_said.says("scontrol show job -o 7", recorded.REQUEUED_7)
    ledgers.submit(run, "7", submission)
    ledgers.start(run, job="7")
    assert queue.lost(run) == Lost()


@pytest.mark.parametrize("state", ["CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED"])
def test_nor_is_one_that_slurm_has_otherwise(run, ledgers, submission, slurm_said, state):
    slurm_said.says("scontrol show job -o 7", recorded.REQUEUED_7.replace("=PENDING", f"={state}"))
    ledgers.submit(run, "7", submission)
    assert queue.lost(run) == Lost()


def test_a_job_that_slurm_has_forgotten(run, ledgers, submission):
    ledgers.submit(run, "7", submission)
    forgotten = "job 7 ended before the run began, and Slurm no longer knows how; it wrote no log"
    assert queue.last_words(run) == f"{forgotten}: it was cancelled, or its first node does not see {submission}"
    file = log(submission, "a login message")  # it did see it
    assert queue.lost(run) == Lost()
    file.unlink()
    ledgers.start(run, job="7")  # its state says as much
    assert queue.lost(run) == Lost("", "", "")
    assert queue.last_words(run) == ""


def test_a_controller_that_is_down_adds_nothing(run, ledgers, submission, slurm_said):
    slurm_said.says("scontrol ping", DOWN)
    ledgers.submit(run, "7", submission)
    assert queue.lost(run) == Lost()


@pytest.mark.parametrize(
    "what", ["never submitted", "done", "failed, in its own words", "cancelled", "started here since"]
)
def test_a_run_that_has_said_how_it_ended_is_not_lost(run, ledgers, submission, what):
    log(submission, f"sslrun: n2 has no {submission}; install it there")
    if what != "never submitted":
        ledgers.submit(run, "7", submission)
    if what == "cancelled":
        Ledger(run.path, 1, "cancel").write("cancel", by=1, job="7")
    elif what == "started here since":
        ledgers.start(run)
    elif what != "never submitted":
        ledgers.start(run, job="7")
        ledgers.end(run, what.partition(",")[0])
    assert queue.lost(run) == Lost()


def test_a_run_that_is_at_work_is_not_lost(run, ledgers, submission):
    log(submission, f"sslrun: n2 has no {submission}; install it there")
    ledgers.submit(run, "7", submission)
    ledgers.start(run, job="7")
    lock = run.lock()
    assert queue.lost(run) == Lost()
    os.close(lock)
    assert queue.lost(run).node == "n2"


def test_a_requeue_that_never_came_is_explained(run, ledgers, submission, slurm_said):
    slurm_said.says("scontrol show job -o 6", recorded.FAILED_6)
    ledgers.submit(run, "6", submission)
    ledgers.start(run, job="6")
    Ledger(run.path, 1, "launcher").write("end", **REQUEUED)
    assert queue.last_words(run).startswith("job 6 ended without a word: FAILED")


def test_the_log_is_that_of_the_last_submission(run, ledgers, submission, tmp_path):
    ledgers.submit(run, "5", tmp_path / "elsewhere")
    ledgers.submit(run, "7", tmp_path / "before")
    ledgers.submit(run, "7", submission)  # taken over by whoever found it
    log(submission, "sslrun: this one")
    assert queue.lost(run) == Lost("this one")


def test_a_job_of_which_nobody_wrote_down_the_folder(run, ledgers, submission):
    ledgers.submit(run, "5", submission)
    ledgers.start(run, job="7")
    log(submission, f"sslrun: n2 has no {submission}; install it there")
    assert queue.lost(run) == Lost()


# -- nodes to leave out ----------------------------------------------------------------------------------------------


def test_nodes_that_let_a_job_down_are_put_on_the_list(run, ledgers, submission, monkeypatch):
    """Of a sweep only the last few are asked about."""
    monkeypatch.setattr(queue, "BLAMED", 2)
    places = [run.path.with_name(f"run-{number}") for number in range(5)]
    runs = [RunDir(shutil.copytree(run.path, place, symlinks=True)) for place in places]
    for number, one in enumerate(runs):
        ledgers.submit(one, str(number), submission)
        log(submission, f"sslrun: n{number} has no {submission}; install it there", job=str(number))
    ledgers.start(runs[3], job="3")  # began, so that somebody else has judged
    queue.blame([run, *runs])
    listed = badnodes.listed(ledgers.folder)
    assert sorted(listed) == ["n2", "n4"]
    assert (listed["n4"]["why"], listed["n4"]["run"]) == (f"has no {submission}", "run-4")


def test_what_is_no_nodes_fault_puts_none_there(run, ledgers, submission):
    ledgers.submit(run, "7", submission)
    log(submission, "sslrun: the code is gone")
    queue.blame([run])
    assert badnodes.listed(ledgers.folder) == {}
