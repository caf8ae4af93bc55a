"""Runs become jobs, each once: what is written down before sbatch, after it, and when it refuses or was not heard."""

import fcntl
import os
from pathlib import Path

import pytest
import recorded
from submitit.core.utils import DelayedSubmission

from launcher.errors import ClusterError, InputError
from launcher.run.files import write_json
from launcher.run.folder import RunDir
from launcher.start import batch, submit
from launcher.start.submit import Submitted

DOWN = "Slurmctld(primary) at login is DOWN\n"
QUEUED = "{job}|{raw}|PENDING|Priority|N/A||1:00:00|main|name|{comment}\n"


# -- one run ---------------------------------------------------------------------------------------------------------


def test_a_run_becomes_a_job_and_its_ledger_says_so(runs, slurm_said):
    run = runs.make()
    assert submit.submit([run]) == {run.id: Submitted("7", joined=False)}
    intent, submitted = runs.told(run)
    assert (intent["event"], submitted["event"]) == ("intent", "submitted")
    assert intent["token"] == submitted["token"] and intent["index"] is None
    assert intent["folder"] == submitted["folder"] == str(run.path / "submit")
    assert {intent["generation"], submitted["generation"]} == {1} and submitted["job"] == "7"
    (command,) = slurm_said.commands("sbatch")
    script = run.path / "submit" / "script.sh"
    assert command == ["sbatch", "--parsable", f"--comment=sslrun:{intent['token']}", str(script)]
    assert run.state().name == "pending" and run.state().job == "7"
    assert slurm_said.commands("scontrol show config") == []  # how long an array may be is asked for arrays


def test_all_that_a_job_needs_is_there_before_sbatch_is_called(runs, slurm_said):
    """Whoever submits may be killed right after it, or while it waits."""
    run = runs.make()
    seen = []

    def sbatch(command: list[str]) -> str:
        folder = run.path / "submit"
        assert runs.told(run)[-1]["event"] == "intent"
        assert DelayedSubmission.load(folder / "0.pkl").args == (str(run.path),)
        assert (folder / "script.sh").read_text().endswith(f" {folder}\n")
        assert (folder / "code" / "module.py").exists()
        lock = runs.folder / ".submit.lock"
        (inherited,) = slurm_said.inherited[-1]
        assert os.path.samestat(os.fstat(inherited), lock.stat())
        with lock.open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(command)
        return "7\n"

    slurm_said.says("sbatch --parsable", sbatch)
    submit.submit([run])
    assert len(seen) == 1
    with (runs.folder / ".submit.lock").open() as other:  # the next one's turn
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_link_in_the_place_of_its_lock_is_refused(runs, tmp_path):
    run = runs.make()
    (runs.folder / ".submit.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=r"submit\.lock: it is not a plain file"):
        submit.submit([run])
    assert not (tmp_path / "mine").exists()


def test_the_script_and_the_pickle_are_the_runs(runs):
    run = runs.make(partition="mixed", python="/opt/a python/bin/python")
    submit.submit([run])
    script = run.path / "submit" / "script.sh"
    assert runs.line(script, "partition") == "mixed"
    assert runs.line(script, "job-name") == run.id
    assert runs.line(script, "output") == str(run.path / "submit" / "slurm-%j.log")
    assert "--array" not in script.read_text()
    pickle = DelayedSubmission.load(run.path / "submit" / "0.pkl")
    assert pickle.function is batch.main
    assert (pickle._timeout_min, pickle._timeout_countdown) == (5, 0)  # requeueing is ours


def test_a_second_start_is_the_next_generations(runs, ledgers):
    run = runs.make()
    ledgers.start(run, job="5")
    ledgers.end(run, "failed")
    submit.submit([run])
    assert {event["generation"] for event in runs.told(run)} == {2}


def test_an_evaluation_is_named_after_its_run(runs):
    run = runs.make()
    evaluation = RunDir(run.path / "evals" / "knn-1")
    evaluation.create(runs.spec(), runs.plan, lambda: runs.code)
    write_json(evaluation.path / "eval.json", {"protocol": "knn", "step": 9})
    assert submit.submit([evaluation]) == {f"{run.id}/evals/knn-1": Submitted("7", joined=False)}
    assert runs.line(evaluation.path / "submit" / "script.sh", "job-name") == f"{run.id}-evals-knn-1"


# -- who is submitted ------------------------------------------------------------------------------------------------

STANDS = {
    "never submitted": None,
    "asked for, and gone": None,
    "failed": None,
    "cancelled": None,
    "stopped": None,
    "waits": Submitted("3_1", joined=True),
    "runs": Submitted("4", joined=True),
    "will start again": Submitted("2", joined=True),
    "done": Submitted(None, joined=True),
    "held": Submitted(None, joined=True),
}


@pytest.mark.parametrize("stands", STANDS)
def test_a_run_that_is_queued_running_or_done_is_joined(runs, ledgers, slurm_said, stands):
    slurm_said.says("squeue", recorded.table(recorded.JOBS))
    slurm_said.says("scontrol show job -o", recorded.FORGOTTEN)
    slurm_said.says("sacct", recorded.NO_ACCOUNTING)
    run, lock = runs.make(), None
    jobs = {"waits": "3_1", "runs": "4", "will start again": "2", "asked for, and gone": "99"}
    if stands in jobs:
        ledgers.submit(run, jobs[stands])
    if stands in ("runs", "will start again"):
        ledgers.start(run, job=jobs[stands])
    elif stands in ("done", "failed", "cancelled", "stopped"):
        ledgers.start(run)
        ledgers.end(run, stands)
    elif stands == "held":
        ledgers.start(run)
        lock = run.lock()
    outcome = submit.submit([run])
    assert outcome == {run.id: STANDS[stands] or Submitted("7", joined=False)}
    assert len(slurm_said.commands("sbatch")) == (0 if STANDS[stands] else 1)
    if lock is not None:
        os.close(lock)


def test_of_several_runs_only_those_that_need_it_are_submitted(runs, ledgers, slurm_said):
    first, second, third = (runs.make(seed) for seed in range(3))
    ledgers.start(second)
    ledgers.end(second)
    outcome = submit.submit([first, second, third])
    assert outcome == {
        first.id: Submitted("7_0", joined=False),
        second.id: Submitted(None, joined=True),
        third.id: Submitted("7_1", joined=False),
    }
    assert runs.told(second) == []


# -- arrays ----------------------------------------------------------------------------------------------------------


def test_runs_that_are_alike_are_one_array(runs, slurm_said):
    made = [runs.make(seed) for seed in (5, 3, 4)]
    outcome = submit.submit(made, name="my sweep")
    assert outcome == {run.id: Submitted(f"7_{index}", joined=False) for index, run in enumerate(made)}
    (command,) = slurm_said.commands("sbatch")
    script = Path(command[-1])
    token = command[2].removeprefix("--comment=sslrun:")
    assert script.parent == runs.folder / ".arrays" / token
    assert (script.parent / "code" / "module.py").exists()
    assert runs.line(script, "array") == "0-2%3"
    assert runs.line(script, "job-name") == "my-sweep"
    assert runs.line(script, "output") == str(script.parent / "slurm-%A_%a.log")
    for index, run in enumerate(made):
        intent, submitted = runs.told(run)
        assert (intent["index"], intent["token"], submitted["token"]) == (index, token, token)
        assert submitted["job"] == f"7_{index}" and submitted["folder"] == str(script.parent)
        assert DelayedSubmission.load(script.parent / f"{index}.pkl").args == (str(run.path),)


def test_a_sweep_takes_a_range_and_a_spare(runs, slurm_said):
    submit.submit([runs.make(seed, nodes=4, least=2, spare_nodes=1) for seed in range(2)])
    (command,) = slurm_said.commands("sbatch")
    script = Path(command[-1])
    assert runs.line(script, "nodes") == "3-5" and runs.line(script, "array") == "0-1%2"
    assert "#SBATCH --no-kill\n" in script.read_text()


def test_an_array_without_a_name_has_its_methods(runs, slurm_said):
    made = [runs.make(seed) for seed in range(2)]
    submit.submit(made)
    assert [runs.told(run)[0]["index"] for run in made] == [0, 1]
    (command,) = slurm_said.commands("sbatch")
    assert runs.line(Path(command[-1]), "job-name") == "rotnet"


def test_what_is_not_alike_are_jobs_of_their_own(runs, slurm_said):
    alike, other_queue, other_code = [runs.make(0), runs.make(3)], runs.make(1, partition="short"), runs.make(2)
    other_code.adopt(runs.other_code(runs.folder / ".code" / "another"))
    outcome = submit.submit([alike[0], other_queue, other_code, alike[1]])
    assert [given.job for given in outcome.values()] == ["7_0", "7_1", "8", "9"]
    assert [*outcome] == [alike[0].id, alike[1].id, other_queue.id, other_code.id]


@pytest.mark.parametrize(("longest", "parts"), [(1, [1, 1, 1]), (0, [1, 1, 1]), (2, [2, 1]), (3, [3]), (1001, [3])])
def test_an_array_is_no_longer_than_slurm_takes(runs, slurm_said, longest, parts):
    slurm_said.says("scontrol show config", recorded.CONFIG.replace("= 1001", f"= {longest}"))
    outcome = submit.submit([runs.make(seed) for seed in range(3)])
    names = {1: ["{}"], 2: ["{}_0", "{}_1"], 3: ["{}_0", "{}_1", "{}_2"]}
    jobs = [name.format(job) for job, part in zip("789", parts, strict=False) for name in names[part]]
    assert [given.job for given in outcome.values()] == jobs
    assert len(slurm_said.commands("sbatch")) == len(parts)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_several_arrays_run_no_more_at_once_than_one_would(runs, slurm_said, at_once):
    slurm_said.says("scontrol show config", recorded.CONFIG.replace("= 1001", "= 1"))
    submit.submit([runs.make(seed, array_parallelism=at_once) for seed in range(3)])
    wait = [[word for word in command if "depend" in word] for command in slurm_said.commands("sbatch")]
    in_turn = [[], ["--dependency=afterany:7"], ["--dependency=afterany:8"]]
    assert wait == (in_turn if at_once < 3 else [[], [], []])


def test_the_array_that_is_waited_for_is_named_as_a_whole(runs, slurm_said):
    slurm_said.says("scontrol show config", recorded.CONFIG.replace("= 1001", "= 2"))
    submit.submit([runs.make(seed, array_parallelism=1) for seed in range(3)])
    assert "--dependency=afterany:7" in slurm_said.commands("sbatch")[1]


# -- a submission that was cut short ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "index", "job"),
    [("token8", None, "12"), ("token7", 0, "3_0"), ("token7", 1, "3_1"), ("token7", 2, "3_2")],
)
def test_a_job_with_the_token_of_an_intent_is_taken_over(runs, slurm_said, token, index, job):
    others = "".join(
        QUEUED.format(job=job, raw=raw, comment=f"sslrun:{name}")
        for job, raw, name in (("3_11", "3", "token7"), ("12", "12", "token8"), ("13", "13", "token88"))
    )
    slurm_said.says("squeue", recorded.table(others + recorded.JOBS))
    run = runs.make()
    runs.intend(run, token, index)
    assert submit.submit([run]) == {run.id: Submitted(job, joined=True)}
    assert slurm_said.commands("sbatch") == []
    found = runs.told(run)[-1]
    assert (found["event"], found["job"], found["token"]) == ("submitted", job, token)
    assert (found["folder"], found["generation"]) == ("/submission", 1)
    assert len(runs.told(run)) == 2


def test_an_intent_of_which_there_is_no_job_is_withdrawn_and_submitted_anew(runs, slurm_said):
    slurm_said.says("squeue", recorded.table(recorded.JOBS))
    run = runs.make()
    runs.intend(run, "token")  # the beginning of theirs
    assert submit.submit([run])[run.id].job == "7"
    assert [event["event"] for event in runs.told(run)] == ["intent", "withdrawn", "intent", "submitted"]
    assert runs.told(run)[1]["token"] == "token" and runs.told(run)[2]["token"] not in ("token", "token7")


def test_where_no_job_has_the_index_it_is_withdrawn(runs, slurm_said):
    slurm_said.says("squeue", recorded.table(recorded.JOBS))
    run = runs.make()
    runs.intend(run, "token7", 3)
    assert submit.settle(run, submit.commands.jobs()).name == "not submitted"
    assert runs.told(run)[-1]["event"] == "withdrawn"


def test_where_nobody_answers_nothing_is_decided(runs, slurm_said):
    run = runs.make()
    runs.intend(run, "token")
    slurm_said.says("scontrol ping", DOWN)
    with pytest.raises(ClusterError, match="slurmctld does not answer"):
        submit.submit([run])
    assert [event["event"] for event in runs.told(run)] == ["intent"]


def test_code_that_knows_no_options_of_srun_is_given_none(runs):
    run = runs.make(srun={"mpi": "none", "container-mounts": ["/a b:/c", "/d"]})
    (run.code_folder().resolve() / "launcher" / "plan").mkdir(parents=True)
    with pytest.raises(InputError, match=r"^cluster.srun.mpi=none: the code that .* does not know it") as refused:
        submit.refuse_unknown(run, run.spec())
    typed = "--code=current cluster.srun.mpi=none 'cluster.srun.container-mounts=[/a b:/c,/d]'`"
    assert str(refused.value).endswith(typed)
    (run.code_folder().resolve() / "launcher" / "plan" / "containers.py").touch()
    submit.refuse_unknown(run, run.spec())
