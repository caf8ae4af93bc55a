"""Runs behind one another: what Slurm is told at each submission, and by a job that began too early."""

import dataclasses
import difflib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import recorded

from launcher.compose import evaluation
from launcher.errors import ClusterError, InputError
from launcher.plan import script
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.spec.runspec import FromRun
from launcher.start import batch, chain, submit

GOLDEN = Path(__file__).parents[1] / "plan" / "golden" / "chain.txt"
DOWN = "Slurmctld(primary) at login is DOWN\n"
ROW = "{job}|{job}|{state}|{reason}|N/A||1:00:00|main|name|\n"


@pytest.fixture
def behind(runs):
    """`behind(source, seed=1)`: a run that starts from what `source` will be."""

    def make(source: RunDir, seed: int = 1, folder: Path = runs.folder, **cluster) -> RunDir:
        start = FromRun(str(source.path), source.spec().identity, None)
        spec = dataclasses.replace(runs.spec(seed, **cluster), init_from=start)
        run = RunDir(folder / spec.run_id)
        run.create(spec, runs.plan, lambda: runs.code)
        return run

    return make


@pytest.fixture
def queue(slurm_said):
    """`queue({"7": "RUNNING", "8": "PENDING Dependency"})`: it holds these from now on."""
    slurm_said.says("scontrol update", "")
    slurm_said.says("scontrol release", "")

    def holds(jobs: dict[str, str]) -> None:
        states = {job: f"{said} None".split()[:2] for job, said in jobs.items()}
        rows = "".join(ROW.format(job=job, state=state, reason=why) for job, (state, why) in states.items())
        slurm_said.says("squeue", recorded.table(rows))

    return holds


@pytest.fixture
def one_behind(runs, behind, queue) -> tuple[RunDir, RunDir]:
    """A run whose job 7 works, and one that is in the queue behind it, as job 8."""
    source = runs.make()
    submit.submit([source])
    queue({"7": "RUNNING"})
    run = behind(source)
    submit.submit([run])
    return source, run


@pytest.fixture
def moved(slurm_said):
    """`moved()`: what was asked of jobs that wait in the queue, in order."""
    kinds = ("scontrol update", "scontrol release", "scontrol requeuehold")
    return lambda: [" ".join(c[1:]) for c in slurm_said.asked if " ".join(c).startswith(kinds)]


def ended(run: RunDir, state: str, job: str = "7") -> None:
    pen = Ledger(run.path, 1, "batch")
    pen.write("start", cause="submitted", job=job, world_size=1, nodes="n1")
    pen.write("end", state=state, cause=state, message="", requeued=False, in_place=False)


def test_sbatchs_options_for_a_chain_are_the_golden_ones():
    """SSLRUN_REWRITE_GOLDEN=1 writes them anew; read the difference before committing it."""
    said = {
        "of a run by itself": script.dependency([]),
        "of a run behind another": script.dependency(["7"]),
        "of one behind a point of a sweep": script.dependency(["7_3"]),
        "of one behind two others": script.dependency(["7", "9"]),
        "of the second array of a sweep behind another run": script.dependency(["7"], also="afterany:8"),
    }
    now = "".join(f"# {name}\n{' '.join(options)}\n" for name, options in said.items())
    if os.environ.get("SSLRUN_REWRITE_GOLDEN"):
        GOLDEN.write_text(now)
    golden = GOLDEN.read_text() if GOLDEN.exists() else ""
    assert golden == now, "\n".join(difflib.unified_diff(golden.splitlines(), now.splitlines(), lineterm=""))


def test_a_run_is_submitted_behind_the_jobs_of_those_that_it_waits_for(runs, behind, queue, slurm_said):
    source = runs.make()
    submit.submit([source])
    queue({"7": "RUNNING"})
    points = [behind(source, seed=seed) for seed in (1, 2)]
    submit.submit(points)
    _, command = slurm_said.commands("sbatch --parsable")
    assert command[3:-1] == ["--dependency=afterok:7", "--kill-on-invalid-dep=no"]
    assert [event["path"] for event in source.history().all("awaited")] == [str(point.path) for point in points]
    assert source.state().job == "7" and source.history().generation == 0  # what others wrote there is no start


def test_an_evaluation_that_was_asked_for_with_its_run_stays_and_follows_it(runs, behind, queue, moved, slurm_said):
    """What the run itself was to wait for is not the evaluation's."""
    run = runs.make(additional_parameters={"dependency": "singleton"})
    submit.submit([run])
    queue({"7": "RUNNING"})
    (wanted,) = evaluation.afterwards(run, ["knn"])
    judged, _ = evaluation.prepare(run, wanted)
    submit.submit([judged])
    command = slurm_said.commands("sbatch --parsable")[-1]
    assert command[3:-1] == ["--dependency=afterok:7", "--kill-on-invalid-dep=no"]
    assert [each.path for each in chain.followers(run)] == [judged.path]
    again, joined = evaluation.prepare(run, dataclasses.replace(wanted, launched=False))  # `sslrun eval`
    assert joined and again.path == judged.path
    ended(run, "failed")
    queue({"8": "PENDING DependencyNeverSatisfied", "9": "RUNNING"})
    (given,) = submit.submit([run]).values()
    assert given.job == "9" and moved() == ["update JobId=8 Dependency=afterok:9"]


def test_those_that_wait_for_different_jobs_are_no_array(runs, behind, queue, slurm_said):
    sources = [runs.make(seed, partition=name) for seed, name in enumerate(("main", "mixed"))]
    submit.submit(sources)
    queue({"7": "RUNNING", "8": "RUNNING"})
    submit.submit([behind(source, seed=seed) for seed, source in enumerate(sources, 5)])
    options = [command[3] for command in slurm_said.commands("sbatch --parsable")[2:]]
    assert options == ["--dependency=afterok:7", "--dependency=afterok:8"]


def test_several_arrays_behind_another_run(runs, behind, queue, slurm_said):
    """Of those that may run at once, each waits for that run's job itself."""
    slurm_said.says("scontrol show config", recorded.CONFIG.replace("= 1001", "= 2"))
    source = runs.make()
    submit.submit([source])
    queue({"7": "RUNNING"})
    submit.submit([behind(source, seed=seed) for seed in range(1, 4)])
    _, *commands = slurm_said.commands("sbatch --parsable")
    assert len(commands) == 2
    for command in commands:
        assert command[3] == "--dependency=afterok:7"


def test_submitters_of_two_folders_write_no_file_together(runs, behind, queue, tmp_path):
    source, others = runs.make(), tmp_path / "others"
    submit.submit([source])
    queue({"7": "RUNNING"})
    waiting = [behind(source), behind(source, seed=2), behind(source, folder=others), behind(source, 4, others)]
    for run in waiting:
        submit.submit([run])
    told = source.history().all("awaited")
    assert {event["path"] for event in told} == {str(run.path) for run in waiting}
    assert len({event["writer"] for event in told}) == 2 == len([*(source.path / "events").glob("0000-*")])


def test_what_ended_between_two_looks_is_waited_for_no_more(runs, behind, queue, slurm_said):
    source = runs.make()
    submit.submit([source])
    run = behind(source)
    ended(source, "done")
    submit.submit([run])
    assert not [word for word in slurm_said.commands("sbatch --parsable")[-1] if "dependency" in word]
    assert not source.history().all("awaited")


def test_a_dependency_of_ones_own_does_not_go_with_it(runs, behind, queue):
    source = runs.make()
    submit.submit([source])
    queue({"7": "RUNNING"})
    run = behind(source, additional_parameters={"dependency": "singleton"})
    with pytest.raises(InputError, match=r"cluster.additional_parameters.dependency=singleton: .*; leave it out"):
        submit.submit([run])


@pytest.mark.parametrize("reason", ["DependencyNeverSatisfied", "Dependency"])
def test_whoever_goes_on_is_followed(runs, behind, queue, moved, reason):
    source = runs.make()
    submit.submit([source])
    queue({"7": "RUNNING"})
    run, judged = behind(source), behind(source, seed=2, partition="mixed")
    submit.submit([run])
    submit.submit([judged])
    ended(source, "failed")
    queue({"8": f"PENDING {reason}", "10": "PENDING", "9": "RUNNING"})
    (given,) = submit.submit([source]).values()
    assert given.job == "9" and f"{run.id} (job 8)" in given.note
    assert moved() == ["update JobId=8 Dependency=afterok:9"]  # the other one has begun: it looks by itself


def test_one_that_was_put_back_is_released_and_one_that_its_user_holds_is_not(one_behind, queue, moved):
    source, run = one_behind
    ended(source, "cancelled")
    assert chain.follow([run]) == {}  # its job is not in the queue
    queue({"8": "PENDING JobHeldUser"})
    assert chain.follow([run]) == {} and moved() == []  # nobody runs the other one
    submit.submit([source])
    Ledger(run.path, 1, "batch").write("waits", source=str(source.path), why="", job="7")  # an earlier one
    queue({"8": "PENDING JobHeldUser", "9": "PENDING"})
    chain.follow([run])
    Ledger(run.path, 1, "batch").write("waits", source=str(source.path), why="", job="8")
    chain.follow([run])
    update = "update JobId=8 Dependency=afterok:9"
    assert moved() == [update, update, "release 8"]


def test_who_resumes_it_while_another_submits_does_not_leave_that_one_behind(runs, behind, queue, moved, slurm_said):
    """A run and its evaluations have folders of their own, and so locks of their own."""
    source = runs.make()
    submit.submit([source])
    queue({"7": "RUNNING"})
    run = behind(source)

    def sbatch(command: list[str]) -> str:
        ended(source, "failed")
        Ledger(source.path, 2, "submit").write("submitted", job="9", folder="/", token="")
        queue({"8": "PENDING", "9": "RUNNING"})
        return "8\n"

    slurm_said.says("sbatch --parsable", sbatch)
    submit.submit([run])
    assert moved() == ["update JobId=8 Dependency=afterok:9"]


def test_a_controller_that_is_lost_in_between_costs_a_second_line(one_behind, queue, moved, slurm_said):
    source, run = one_behind
    ended(source, "failed")
    queue({"8": "PENDING DependencyNeverSatisfied"})

    def sbatch(command: list[str]) -> str:
        slurm_said.says("scontrol ping", DOWN)
        return "9\n"

    slurm_said.says("sbatch --parsable", sbatch)
    (given,) = submit.submit([source]).values()
    assert given.job == "9" and "does not follow it yet" in given.note and moved() == []
    slurm_said.says("scontrol ping", "Slurmctld(primary) at login is UP\n")
    queue({"8": "PENDING DependencyNeverSatisfied", "9": "RUNNING"})
    (given,) = submit.submit([source]).values()
    assert given.joined and moved() == ["update JobId=8 Dependency=afterok:9"]
    (given,) = submit.submit([run]).values()  # and so does that of the other one
    assert given.joined and moved()[1:] == ["update JobId=8 Dependency=afterok:9"]


@pytest.mark.parametrize("what", ["nothing", "a folder", "somebody else's", "a run that waits for nobody"])
def test_what_others_write_into_a_ledger_moves_no_job(runs, behind, queue, moved, tmp_path, what):
    source, path = runs.make(), tmp_path / "other"
    submit.submit([source])
    queue({"7": "RUNNING", "8": "PENDING"})
    if what == "a folder":
        path.mkdir()
    elif what == "a run that waits for nobody":
        path = runs.make(seed=3).path
    elif what == "somebody else's":
        path = behind(source).path
        os.chown(path, 65534, -1) if os.geteuid() == 0 else pytest.skip("giving a folder away takes root")
    Ledger(source.path, 0, "awaited").write("awaited", path=str(path))
    assert chain.followers(source) == [] and chain.follow([RunDir(path)]) == {}
    assert chain.exit_code(source, 0) == 0


def test_a_job_that_began_too_early_goes_back_held(runs, behind, job, queue, moved, slurm_said, monkeypatch):
    """And behind whoever resumed the other one meanwhile, who met it at work and left it alone."""
    source = runs.make()
    submit.submit([source])
    queue({"7": "RUNNING"})
    run = behind(source)
    slurm_said.says("sbatch --parsable", "8\n", "9\n")
    submit.submit([run])
    ended(source, "stopped")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    slurm_said.says("scontrol requeuehold", "")
    queue({"8": "COMPLETING"})
    with pytest.raises(SystemExit) as end:
        batch.main(str(run.path))
    assert end.value.code == 0 and moved() == ["requeuehold 8"]
    assert not run.history().all("start") and run.state().name == "pending"

    def resumed(command: list[str]) -> str:
        submit.submit([source])
        queue({"8": "COMPLETING", "9": "PENDING"})
        return ""

    slurm_said.says("scontrol requeuehold", resumed)
    queue({"8": "RUNNING"})
    assert chain.held_back(run, Ledger(run.path, 1, "batch"))
    assert moved()[1:] == ["requeuehold 8", "update JobId=8 Dependency=afterok:9", "release 8"]
    assert [event["job"] for event in run.history().all("waits")] == ["8", "8"]


def test_a_job_that_was_cancelled_as_it_began_does_not_go_back(one_behind, job, queue, moved, monkeypatch):
    source, run = one_behind
    ended(source, "stopped")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    Ledger(run.path, 1, "cancel").write("cancel", by=1, job="8")
    assert chain.held_back(run, Ledger(run.path, 1, "batch")) and moved() == []


def test_what_this_node_does_not_see_yet_is_waited_for(one_behind, job, queue, moved, slurm_said, monkeypatch):
    """A run that is done has said so on another node, a moment before its job ended."""
    source, run = one_behind
    Ledger(source.path, 1, "batch").write("start", cause="submitted", job="7", world_size=1, nodes="n1")
    queue({"8": "RUNNING"})
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            done = {"state": "done", "cause": "done", "message": "", "requeued": False, "in_place": False}
            Ledger(source.path, 1, "batch").write("end", **done)

    monkeypatch.setattr(chain, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=sleep))
    assert not chain.held_back(run, Ledger(run.path, 1, "batch"))
    assert len(waits) == 2 and moved() == [] and not run.history().all("waits")


def test_a_job_ends_with_0_for_those_behind_it_only_where_its_run_is_done(runs, behind, queue, moved):
    source = runs.make()
    submit.submit([source])
    queue({"7": "RUNNING"})
    assert chain.exit_code(source, 0) == 0  # nobody waits
    run = behind(source)
    submit.submit([run])
    assert chain.exit_code(source, 0) == chain.NOT_DONE and chain.exit_code(source, 4) == 4
    ended(source, "done")
    queue({"7": "RUNNING", "8": "PENDING Dependency"})
    assert chain.exit_code(source, 0) == 0 and moved() == []  # Slurm starts it by itself
    queue({"7": "RUNNING", "8": "PENDING DependencyNeverSatisfied"})
    assert chain.exit_code(source, 0) == 0 and moved() == ["update JobId=8 Dependency="]


def test_where_slurm_does_not_take_it_back_it_ends_with_slurms_word(one_behind, job, queue, slurm_said, monkeypatch):
    source, run = one_behind
    ended(source, "stopped")
    slurm_said.says("scontrol requeuehold", recorded.Refused("Requested operation is presently disabled"))
    with pytest.raises(SystemExit) as end:
        batch.main(str(run.path))
    assert end.value.code == ClusterError.exit_code
