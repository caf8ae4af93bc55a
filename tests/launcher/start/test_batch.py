"""The batch script of a run: a start that nobody decided, and one that somebody asked for.

A stand-in for Slurm says what it is asked, and nothing is started: tests/slurm has real jobs.
"""

import os
import signal
import subprocess
import sys

import pytest

from launcher.errors import NodesRefused
from launcher.plan import steps
from launcher.run.ledger import Ledger
from launcher.slurm import badnodes
from launcher.start import batch, evidence, network, preflight, ranks, unpacking
from launcher.start.ending import Outcome
from launcher.start.told import Told

DONE = Outcome("done", "done", "", 0)


@pytest.fixture
def killed(runs):
    """A run that was killed three times and got on each time; the fourth time nobody was left to write it down."""
    run = runs.make()
    for generation in range(1, 5):
        pen = Ledger(run.path, generation, "batch")
        pen.write("start", cause="killed", job="7", nodes="n1", world_size=1)
        pen.write("checkpoint", step=10 * generation, path=f"step_{10 * generation:08d}")
        if generation < 4:
            pen.write("end", state="preempted", cause="killed", message="", requeued=True)
    return run


def test_a_run_whose_budget_is_spent_is_not_started_although_slurm_began_to(killed, job, monkeypatch, capsys):
    monkeypatch.setattr(batch, "_work", lambda *_: pytest.fail("its ranks were started"))
    with pytest.raises(SystemExit) as ended:
        batch.main(str(killed.path))
    end = killed.history().last("end")
    message = "ended without a word: killed (end 4 of this kind: killed; 3 are forgiven)"
    assert (end["state"], end["cause"], end["message"]) == ("failed", "killed", message)
    assert ended.value.code == 4 and not end["requeued"] and message in capsys.readouterr().out
    assert not job.slurm.commands("scontrol requeue")


def test_it_is_started_where_a_person_asked_for_that(killed, job, monkeypatch):
    Ledger(killed.path, 5, "submit").write("submitted", job="7", token="a", folder=str(killed.path / "submit"))
    monkeypatch.setattr(batch, "_work", lambda *_: DONE)
    with pytest.raises(SystemExit) as ended:
        batch.main(str(killed.path))
    assert ended.value.code == 0 and killed.history().last("end")["state"] == "done"


NOTHING_STARTS = ["echo 'srun: error: Unable to create step' >&2; exit 1", "exit 1", "exec sleep 60"]


@pytest.fixture
def hasty(monkeypatch):
    """What would be waited for a minute is waited for a moment."""
    monkeypatch.setattr(preflight, "PREFLIGHT_SECONDS", 0.2)
    monkeypatch.setattr(preflight, "ASKED_SECONDS", 0.2)


@pytest.mark.parametrize("script", NOTHING_STARTS)
def test_nodes_on_which_nothing_can_be_started_are_tried_again_in_the_same_job(runs, job, ends_of, hasty, script):
    job.srun(script)
    again = ("preempted", "not_started", "in_place")
    assert ends_of(runs.make()) == [again] * 2 + [("failed", "no_progress", "")]
    assert not job.slurm.commands("scontrol requeue")


def test_they_are_left_to_slurm_where_the_job_has_no_time_for_another_start(runs, job, ends_of):
    job.is_now(limit="00:05:00", used="00:03:00")
    run = runs.make()
    ends = [end for _ in range(3) for end in ends_of(run)]
    assert ends == [("preempted", "not_started", "requeued")] * 2 + [("failed", "no_progress", "")]
    assert job.slurm.commands("scontrol requeue") == [["scontrol", "requeue", "7"]] * 2


def test_where_no_node_sees_the_run_it_is_not_tried_again(runs, job, ends_of):
    job.srun("echo n1 does not see it; exit 3")
    assert ends_of(runs.make()) == [("failed", "cluster", "")]
    assert not badnodes.listed(runs.folder)


def test_where_some_nodes_do_not_see_the_run_slurm_is_asked_for_others(runs, job, ends_of):
    job.began_on("n[1-2]")
    job.srun("echo n1 is n1; echo n2 does not see it; exit 3")
    run = runs.make(nodes=2)
    ends = [end for _ in range(3) for end in ends_of(run)]
    assert ends == [("preempted", "not_started", "requeued")] * 2 + [("failed", "no_progress", "")]
    assert list(badnodes.listed(runs.folder)) == ["n2"]


def test_a_node_that_cannot_have_the_environment_is_left_out_and_as_good_as_any_for_others(
    runs, job, ends_of, monkeypatch
):
    def refused(*_, **__):
        raise NodesRefused({"n2": "has no folder /scratch"}, "take another")

    job.began_on("n[1-2]")
    monkeypatch.setattr(preflight, "look", lambda *_, **__: {})
    monkeypatch.setattr(unpacking, "on_nodes", refused)
    run = runs.make(nodes=2, local_env="/scratch")
    assert ends_of(run)[0][:2] == ("preempted", "not_started")
    left_out = run.history().last("left_out")
    assert (left_out["node"], left_out["why"]) == ("n2", "has no folder /scratch")
    job.began_on("n2", "n2")
    alone = runs.make(1, local_env="/scratch")
    assert ends_of(alone)[0][:2] == ("failed", "cluster")
    assert alone.history().last("end")["message"] == "n2 has no folder /scratch; take another"
    assert not badnodes.listed(runs.folder)


def test_what_nodes_do_not_meet_by_is_judged_by_how_many_the_run_can_do_without(runs, job, ends_of, monkeypatch):
    spares = []

    def apart(*_, spare, **__):
        spares.append(spare)
        raise NodesRefused({"n2": "has no address at eth0"})

    job.began_on("n[1-3]")
    monkeypatch.setattr(preflight, "look", lambda *_, **__: {})
    monkeypatch.setattr(network, "find", apart)
    assert ends_of(runs.make(nodes=2, spare_nodes=1))[0] == ("preempted", "not_started", "in_place")
    assert spares[:2] == [1, 0]


def looks(run, seconds: int) -> subprocess.Popen:
    """What a node does before its ranks begin."""
    words = ["sh", "-c", steps.LOOK, "sslrun", str(run), "sh", str(seconds), ""]
    return subprocess.Popen(words, env={**os.environ, "SLURMD_NODENAME": "n2"}, stdout=subprocess.PIPE, text=True)


def test_a_node_has_a_while_to_see_the_run(tmp_path):
    late = looks(tmp_path / "late", 60)
    assert looks(tmp_path / "never", 1).communicate()[0] == f"n2 begins\nn2 does not see {tmp_path}/never\n"
    assert late.poll() is None
    (tmp_path / "late" / "logs").mkdir(parents=True)
    (tmp_path / "late" / "spec.json").touch()
    assert late.communicate() == (f"n2 begins\nn2 is {os.uname().nodename}\n", None) and late.returncode == 0


# What starts a container -> what the node says of it. The last words are Python's own.
CONTAINERS = {
    'shift 2; exec "$@"': "is {host}",
    "echo 'FATAL: no such image' >&2; exit 255": "cannot start a container with cluster.python: FATAL: no such image",
    "echo INFO: unpacking; echo does not see /x inside the container; exit 3": "does not see /x inside the container",
}


@pytest.mark.parametrize("script", CONTAINERS)
def test_where_python_is_in_a_container_it_is_looked_into(tmp_path, script):
    (tmp_path / "logs").mkdir()
    (tmp_path / "spec.json").touch()
    apptainer = tmp_path / "apptainer"
    apptainer.write_text(f"#!/bin/sh\n{script}\n")
    apptainer.chmod(0o700)
    inside = [apptainer, "exec", "a.sif", sys.executable, "-I", "-S", "-c", steps.SEEN, tmp_path]
    words = ["sh", "-c", steps.LOOK_INTO, "sslrun", tmp_path, apptainer, "0", *inside]
    known = {"env": {**os.environ, "SLURMD_NODENAME": "n2"}, "capture_output": True, "text": True}
    said = subprocess.run(words, **known)
    assert said.stdout == f"n2 {CONTAINERS[script].format(host=os.uname().nodename)}\n", said.stderr
    assert said.returncode == (0 if " is " in said.stdout else 3)
    hidden = subprocess.run([*words, "/no/where", "/no/what"], **known)
    assert hidden.returncode == 3 and ("does not see /no/where, /no/what inside" in hidden.stdout) == ("@" in script)


@pytest.mark.parametrize(("timeout_min", "seconds"), [(5, "30"), (600, "60")])
def test_a_short_job_waits_for_a_part_of_its_time_alone(runs, job, ends_of, tmp_path, timeout_min, seconds):
    job.srun(look=f'while [ "$1" != sslrun ]; do shift; done; echo "$4" > {tmp_path}/seconds; exit 1')
    ends_of(runs.make(timeout_min=timeout_min))
    assert (tmp_path / "seconds").read_text() == f"{seconds}\n"


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_limit_that_comes_before_any_rank_began_is_one(runs, job, ends_of, monkeypatch, number):
    """USR2 is what Slurm sends before the time limit; the limit of these runs is over within the margin."""
    job.is_now(limit="00:02:30")

    def told_meanwhile(*_):
        signal.raise_signal(number)
        return evidence.NOT_BEGUN

    monkeypatch.setattr(batch, "_work", told_meanwhile)
    run = runs.make()
    ends = [end for _ in range(3) for end in ends_of(run)]
    limit = [("preempted", "time_limit", "requeued")] * 2 + [("failed", "no_progress", "")]
    assert ends == (limit if number == signal.SIGUSR2 else [("preempted", "asked", "requeued")] * 3)


@pytest.mark.parametrize(("seconds", "cause"), [(60, "time_limit"), (86400, "asked")])
@pytest.mark.parametrize("began", [0, 2**32])
def test_a_limit_is_one_whatever_the_controllers_clock_says(runs, job, ends_of, monkeypatch, began, seconds, cause):
    job.slurm.says("scontrol show job", "")
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(began))
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(began + seconds))
    monkeypatch.setattr(batch, "_work", lambda *_: signal.raise_signal(signal.SIGUSR2) or evidence.NOT_BEGUN)
    assert ends_of(runs.make()) == [("preempted", cause, "requeued")]


def test_work_that_was_kept_between_two_steps_is_noted_once(runs, ends_of, monkeypatch):
    run = runs.make()
    folder = run.path / "features" / "step_00000004"
    folder.mkdir(parents=True)

    def keeps(*names: str):
        for name in names:
            (folder / f"{name}.safetensors").touch()
        return lambda *_: evidence.NOT_BEGUN

    kept = []
    for names in (["features.0-8.ab"], [], ["features.8-16.cd", "k-means.3-4.ef"], [".writing-1", "odd"]):
        monkeypatch.setattr(batch, "_work", keeps(*names))
        ends_of(run)
        kept.append([(e["generation"], *e["work"]) for e in run.history().all("kept")])
    assert kept == [[(1, 4, 8)], [(1, 4, 8)], *[[(1, 4, 8), (3, 4, 28)]] * 2]


def test_a_job_whose_log_finds_no_room_ends_as_it_would(runs, ends_of, monkeypatch):
    run = runs.make()
    monkeypatch.setattr(batch, "_work", lambda *_: DONE)
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert ends_of(run) == [("done", "done", "")]


@pytest.mark.fault
def test_a_folder_that_is_away_has_the_job_start_again_within_the_budget(killed, job, away, monkeypatch, capsys):
    monkeypatch.setattr(batch.time, "sleep", lambda _: None)
    monkeypatch.setattr(batch, "_work", lambda *_: pytest.fail("its ranks were started"))
    away(killed.path / "events")
    for restarts, requeued in (("0", True), ("19", True), ("20", False)):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        asked = len(job.slurm.commands("scontrol requeue"))
        with pytest.raises(SystemExit) as ended:
            batch.main(str(killed.path))
        assert ended.value.code == 4 and (len(job.slurm.commands("scontrol requeue")) > asked) == requeued
        assert f"sslrun: {killed.path}/events cannot be read on " in capsys.readouterr().out
    away(None)
    assert killed.generation() == 4 and not killed.history().of(5)


@pytest.mark.fault
def test_code_that_is_away_ends_a_start_which_comes_again_in_the_same_job(runs, ends_of, away, monkeypatch):
    run, work = runs.make(), batch._work
    code = run.code_folder().resolve() / "module.py"
    away(code)
    tries = iter([work, lambda *_: DONE])
    monkeypatch.setattr(batch, "_work", lambda *given: next(tries)(*given))
    assert ends_of(run) == [("preempted", "unreadable", "in_place"), ("done", "done", "")]
    assert "module.py: " in run.history().of(1).last("end")["message"]


@pytest.mark.fault
def test_how_a_start_ended_is_told_once_the_ledger_can_be_read(runs, ends_of, away, monkeypatch):
    run = runs.make()
    monkeypatch.setattr(batch, "_work", lambda *_: away(run.path / "events", times=2) or DONE)
    assert ends_of(run) == [("done", "done", "")]


@pytest.mark.fault
def test_a_run_whose_folder_is_not_there_has_the_job_start_again(tmp_path, job, monkeypatch, capsys):
    """As where its first node has not mounted it yet."""
    monkeypatch.setattr(batch.time, "sleep", lambda _: None)
    for restarts, requeued in (("19", True), ("20", False)):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        asked = len(job.slurm.commands("scontrol requeue"))
        with pytest.raises(SystemExit) as ended:
            batch.main(str(tmp_path / "away" / "run"))
        assert ended.value.code == 4 and (len(job.slurm.commands("scontrol requeue")) > asked) == requeued
        assert capsys.readouterr().out.startswith(f"sslrun: {tmp_path}/away/run/lock: No such file or directory (on ")


@pytest.mark.fault
@pytest.mark.parametrize("times", [2, float("inf")])
def test_what_goes_away_once_the_run_is_locked_is_waited_for(killed, job, away, monkeypatch, times):
    monkeypatch.setattr(batch.time, "sleep", lambda _: None)
    monkeypatch.setattr(evidence, "hopeless", lambda _: DONE)
    lock = batch._lock
    monkeypatch.setattr(batch, "_lock", lambda run: (lock(run), away(run.path / "events", times))[0])
    with pytest.raises(SystemExit) as ended:
        batch.main(str(killed.path))
    away(None)
    begun = times == 2
    assert ended.value.code == (0 if begun else 4) and bool(job.slurm.commands("scontrol requeue")) != begun
    assert len(killed.history().of(4).all("end")) == len(killed.history().of(5).all("end")) == begun


def test_a_folder_that_goes_while_the_run_works_leaves_no_traceback(runs, ends_of, monkeypatch):
    run = runs.make()

    def gone(*_):
        raise FileNotFoundError(2, "No such file or directory", "plan.json")

    monkeypatch.setattr(batch, "_work", lambda *_: Outcome("failed", "killed", "", 4))
    monkeypatch.setattr(evidence, "understood", gone)
    assert ends_of(run) == [("preempted", "unreadable", "requeued")]
    assert run.history().last("end")["message"].startswith("plan.json: No such file or directory (on ")


def test_a_node_without_srun_is_said_to_lack_it(runs, ends_of, monkeypatch):
    run = runs.make()

    def none(*_, **__):
        raise FileNotFoundError(2, "No such file or directory", "srun")

    monkeypatch.setattr(preflight.subprocess, "Popen", none)
    assert ends_of(run)[0][0] == "failed"
    assert run.history().last("end")["message"].startswith("srun: No such file or directory (on ")


@pytest.mark.fault
def test_ranks_that_trained_are_not_said_never_to_have_begun(runs, job, ends_of, away, monkeypatch):
    """The job is told to end while its ranks work, and how they ended cannot be read."""
    run = runs.make()
    job.srun("exit 0")
    monkeypatch.setattr(Told, "pass_on", lambda *_: None)
    monkeypatch.setattr(preflight, "look", lambda *_, **__: {})
    start, concluded = ranks.start, batch._concluded

    def started(*given, **more):
        signal.raise_signal(signal.SIGTERM)
        ended = start(*given, **more)
        away(run.path / "events")
        return ended

    monkeypatch.setattr(ranks, "start", started)
    monkeypatch.setattr(batch, "_concluded", lambda *given: away(None) or concluded(*given))
    assert ends_of(run) == [("preempted", "unreadable", "requeued")]
    assert f"{run.path}/events cannot be read on " in run.history().last("end")["message"]
