"""What is asked before a run is submitted, which nodes are left out, and who may still be given another place."""

import dataclasses
import os
from pathlib import Path

import pytest
import recorded

from launcher.errors import ClusterError, InputError
from launcher.run.files import read_json
from launcher.run.folder import RunDir
from launcher.slurm import badnodes
from launcher.start import submit

DOWN = "Slurmctld(primary) at login is DOWN\n"


# -- nodes that let a run down ---------------------------------------------------------------------------------------


def test_the_node_that_could_not_open_the_log_is_left_out_of_the_next(runs, ledgers, slurm_said):
    slurm_said.says("scontrol show job -o 1", recorded.UNOPENED_1)
    run = runs.make()
    ledgers.submit(run, "1", run.path / "submit")
    found = submit.submit([run])[run.id]
    assert found.note.startswith("nodes left out until ") and "n1 (could not open a log in" in found.note
    assert "--exclude=n1" in slurm_said.commands("sbatch")[0]


def test_ones_own_exclusion_is_kept_beside_it(runs, slurm_said):
    run = runs.make(partition="mixed", exclude="c1")
    badnodes.mark(run, ["n1", "c1", "n7"], "went down")  # one is out already, and one is not there
    submit.submit([run])
    assert "--exclude=c1,n1" in slurm_said.commands("sbatch")[0]


def test_where_too_few_nodes_are_left_all_are_used(runs, slurm_said):
    run = runs.make(nodes=2)
    badnodes.mark(run, ["n1"], "went down")
    found = submit.submit([run])[run.id]
    assert found.note == "nodes used all the same, because too few other nodes are left: n1 (went down)"
    assert not any("--exclude" in word for word in slurm_said.commands("sbatch")[0])


def test_of_a_range_and_its_spares_the_fewest_must_be_left(runs, slurm_said):
    for given, left_out in (({"nodes": 4, "least": 1}, True), ({"nodes": 4, "least": 1, "spare_nodes": 1}, False)):
        run = runs.make(seed=int(left_out), **given)
        badnodes.mark(run, ["n1"], "went down")
        submit.submit([run])
        assert any("--exclude=n1" in word for word in slurm_said.commands("sbatch")[-1]) == left_out


# -- code that knows neither ranges nor spares -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"), [({"nodes": 4, "least": 2}, "nodes=2-4"), ({"spare_nodes": 1}, "cluster.spare_nodes=1")]
)
def test_a_run_whose_code_knows_no_such_thing_is_not_given_it(runs, given, words):
    run = runs.make()
    submit.refuse_unknown(run, runs.spec(**given))  # of a method alone, without a launcher: it is ours that runs
    rooms = run.code_folder().resolve() / "launcher" / "plan"
    rooms.mkdir(parents=True)
    with pytest.raises(InputError) as refused:
        submit.refuse_unknown(run, runs.spec(**given))
    assert str(refused.value).endswith(f"`sslrun resume {run.path} --code=current {words}`")
    submit.refuse_unknown(run, runs.spec(nodes=4))
    (rooms / "worlds.py").touch()
    submit.refuse_unknown(run, runs.spec(**given))


# -- asking beforehand -----------------------------------------------------------------------------------------------


@pytest.fixture
def asked(runs, slurm_said):
    """`asked(answer, ..., constraint="a100")`: how often Slurm was asked whether it would take such a job."""

    def check(*answers, **cluster) -> int:
        slurm_said.says("sbatch --test-only", *answers)
        before = len(slurm_said.commands("sbatch"))
        submit.check(runs.spec(**cluster), runs.plan)
        return len(slurm_said.commands("sbatch")) - before

    return check


def test_what_slurm_would_take_is_asked_with_the_very_script(runs, asked, slurm_said):
    seen = []

    def answer(command: list[str]) -> str:
        script = Path(command[-1])
        seen.append((command[:-1], script, runs.line(script, "partition"), runs.line(script, "output")))
        return ""

    badnodes.mark(RunDir(runs.folder / "any"), ["n1"], "went down")
    assert asked(answer, partition="mixed") == 1
    ((command, script, partition, log),) = seen
    assert (command, partition) == (["sbatch", "--test-only", "--exclude=n1"], "mixed")
    assert log == str(runs.folder / runs.spec().run_id / "submit" / "slurm-%j.log")
    assert not script.exists()
    assert not any(path.name != ".code" and path.is_dir() for path in runs.folder.iterdir())


def test_what_no_partition_has_is_refused_without_asking(asked, slurm_said):
    with pytest.raises(InputError, match="nodes=3"):
        asked("", nodes=3)
    assert slurm_said.commands("sbatch") == []


def test_nodes_that_are_away_are_waited_for(asked, slurm_said):
    slurm_said.cluster(recorded.NODES_AT_WORK)
    assert asked(recorded.NOT_AVAILABLE) == 1
    with pytest.raises(ClusterError, match=r"look at cluster\.constraint=a100"):  # which no node would have
        asked(recorded.NO_FEATURE, constraint="a100")


def test_nodes_that_have_come_back_between_two_questions_are_asked_about_again(asked, slurm_said):
    assert asked(recorded.NOT_AVAILABLE, "") == 2


def test_what_the_nodes_have_not_is_refused(asked, slurm_said):
    with pytest.raises(ClusterError) as refused:
        asked(recorded.NOT_AVAILABLE, gres="craynetwork:1")
    words = "sbatch: Requested node configuration is not available; look at cluster.gres=craynetwork:1"
    assert str(refused.value) == words
    assert len(slurm_said.commands("sbatch")) == 2
    with pytest.raises(ClusterError, match="Invalid feature"):
        asked(recorded.NO_FEATURE, "")
    assert len(slurm_said.commands("sbatch")) == 3  # that does not change in a moment


# -- another place ---------------------------------------------------------------------------------------------------


def test_a_run_that_never_began_takes_what_is_not_its_science(runs, ledgers, slurm_said):
    slurm_said.says("sbatch --test-only", "")
    run = runs.make(group=None)
    run.place(runs.spec(nodes=1, partition="short"), runs.plan)
    wanted = runs.spec(nodes=2, group="staff", partition="mixed")
    assert submit.amend(run, wanted, dataclasses.replace(runs.plan, steps=12345))
    assert run.spec().to_json() == dataclasses.replace(wanted, group=None).to_json()  # whose folder it is stays
    assert run.plan()["steps"] == 12345
    assert not (run.path / "placement.json").exists()
    assert slurm_said.commands("squeue") == []
    ledgers.submit(run, "99")  # and was refused, or cancelled while it waited
    assert submit.amend(run, runs.spec(), runs.plan)
    assert len(slurm_said.commands("squeue")) == 1


@pytest.mark.parametrize("what", ["began", "held", "queued", "intended"])
def test_a_run_that_began_or_that_a_job_has_keeps_what_it_has(runs, ledgers, slurm_said, what):
    slurm_said.says("squeue", recorded.table(recorded.JOBS.replace("token7", "token")))
    run, lock = runs.make(), None
    if what == "began":
        ledgers.start(run)
        ledgers.end(run, "failed")
    elif what == "held":
        lock = run.lock()
    elif what == "queued":
        ledgers.submit(run, "4")
    else:
        runs.intend(run, "token", 1)
    before = read_json(run.path / "spec.json")
    assert not submit.amend(run, runs.spec(nodes=2), runs.plan)
    assert read_json(run.path / "spec.json") == before
    if lock is not None:
        os.close(lock)


def test_what_it_takes_is_for_its_user_alone(runs):
    run = runs.make()
    before = os.umask(0o022)
    try:
        assert submit.amend(run, runs.spec(kind="local"), runs.plan)
    finally:
        os.umask(before)
    assert [(run.path / name).stat().st_mode & 0o077 for name in ("spec.json", "plan.json")] == [0, 0]


def test_what_the_cluster_would_refuse_is_not_taken(runs):
    run = runs.make()
    with pytest.raises(InputError, match="nodes=3"):
        submit.amend(run, runs.spec(nodes=3), runs.plan)
    assert run.spec().nodes == 1


def test_of_a_run_that_goes_on_here_no_cluster_is_asked(runs, slurm_said):
    run = runs.make()
    assert submit.amend(run, runs.spec(kind="local", nodes=3), runs.plan)
    assert slurm_said.asked == []


def test_a_run_that_nobody_has_is_moved(runs, ledgers, slurm_said):
    run = runs.make()
    ledgers.start(run)
    ledgers.end(run, "stopped")
    submit.move(run, runs.spec(nodes=2), dataclasses.replace(runs.plan, steps=12345))
    assert (run.spec().nodes, run.plan()["steps"]) == (2, 12345)
    (placed,) = runs.told(run, "placed")
    assert placed["nodes"] == 2 and placed["generation"] == 2
    assert slurm_said.asked == [] and not run.held()


@pytest.mark.parametrize("what", ["queued", "intended"])
def test_a_run_that_a_job_has_is_not_moved(runs, ledgers, slurm_said, what):
    slurm_said.says("squeue", recorded.table(recorded.JOBS))
    run = runs.make()
    if what == "queued":
        ledgers.submit(run, "3_1")
    else:
        runs.intend(run, "token7", 1)
    with pytest.raises(InputError) as refused:
        submit.move(run, runs.spec(nodes=2), runs.plan)
    words = f"RUN={run.id}: job 3_1 has it, on nodes of its own; `sslrun cancel {run.path}` first"
    assert str(refused.value) == words
    assert run.spec().nodes == 1


def test_a_run_whose_job_is_gone_is_moved(runs, ledgers, slurm_said):
    run = runs.make()
    ledgers.submit(run, "99")
    submit.move(run, runs.spec(nodes=2), runs.plan)
    assert run.spec().nodes == 2
    slurm_said.says("scontrol ping", DOWN)
    with pytest.raises(ClusterError, match="slurmctld does not answer"):  # it may have one
        submit.move(run, runs.spec(nodes=1), runs.plan)
    assert run.spec().nodes == 2


def test_a_run_that_a_process_has_is_not_moved(runs, ledgers):
    run = runs.make()
    ledgers.start(run)
    lock = run.lock()
    with pytest.raises(InputError, match="runs it, and a run has one writer"):
        submit.move(run, runs.spec(nodes=2), runs.plan)
    os.close(lock)
    assert run.spec().nodes == 1


def test_nor_one_that_a_process_has_taken_this_instant(runs, monkeypatch):
    """A stand-in for one that holds the lock while it is tried, and no longer when it is asked who that is."""
    run = runs.make()
    monkeypatch.setattr(run, "lock", lambda: None)
    with pytest.raises(
        InputError, match=f"RUN={run.id}: somebody has just started it; `sslrun cancel {run.path}` stops"
    ):
        submit.move(run, runs.spec(nodes=2), runs.plan)
    assert run.spec().nodes == 1
