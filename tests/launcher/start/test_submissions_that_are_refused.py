"""What sbatch refuses, or the queue has no room for: what is written down, what is submitted all the same, and what is
left for the next call."""

import resource

import pytest
import recorded

from launcher.errors import ClusterError, InputError
from launcher.run.state import State
from launcher.start import submit
from launcher.start.submit import Submitted

DOWN = "Slurmctld(primary) at login is DOWN\n"
QUEUED = "{job}|{raw}|PENDING|Priority|N/A||1:00:00|main|name|{comment}\n"


REFUSAL = "sbatch: Invalid feature specification"


def test_a_refusal_is_explained_and_written_down(runs, slurm_said):
    slurm_said.says("sbatch --parsable", recorded.SUBMISSION_FAILED)
    slurm_said.says("squeue", recorded.table(recorded.JOBS))  # of others
    made = [runs.make(seed, constraint="a100") for seed in range(2)]
    with pytest.raises(ClusterError) as refused:
        submit.submit(made)
    assert str(refused.value) == f"{REFUSAL}; look at cluster.constraint=a100"
    for run in made:
        intent, withdrawn = runs.told(run)
        assert (withdrawn["event"], withdrawn["why"], withdrawn["token"]) == ("withdrawn", REFUSAL, intent["token"])
        assert run.state() == State("not submitted", REFUSAL)


def test_a_job_that_is_there_in_spite_of_a_refusal_is_found_by_the_next(runs, slurm_said):
    """sbatch gave up waiting for an answer, say."""
    run = runs.make()

    def sbatch(command: list[str]) -> object:
        row = QUEUED.format(job="7", raw="7", comment=command[2].removeprefix("--comment="))
        slurm_said.says("squeue", recorded.table(recorded.JOBS + row))
        return recorded.SUBMISSION_FAILED

    slurm_said.says("sbatch --parsable", sbatch)
    with pytest.raises(ClusterError, match=REFUSAL):
        submit.submit([run])
    assert [event["event"] for event in runs.told(run)] == ["intent"]
    assert submit.submit([run]) == {run.id: Submitted("7", joined=True)}


def test_where_one_cannot_ask_the_intent_stays_open(runs, slurm_said):
    run = runs.make()

    def sbatch(command: list[str]) -> object:
        slurm_said.says("scontrol ping", DOWN)
        return recorded.SUBMISSION_FAILED

    slurm_said.says("sbatch --parsable", sbatch)
    with pytest.raises(ClusterError, match=REFUSAL):
        submit.submit([run])
    assert [event["event"] for event in runs.told(run)] == ["intent"]


def test_runs_before_the_one_that_is_refused_keep_their_jobs(runs, slurm_said):
    slurm_said.says("sbatch --parsable", "7\n", recorded.SUBMISSION_FAILED)
    good, bad = runs.make(0), runs.make(1, partition="short")
    with pytest.raises(ClusterError):
        submit.submit([good, bad])
    assert (good.state().job, bad.state().job) == ("7", None)


@pytest.mark.parametrize("room", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("limit", recorded.LIMITS)
def test_as_many_are_submitted_as_the_queue_takes(runs, slurm_said, room, limit):
    recorded.limited(slurm_said, room, limit)
    made = [runs.make(seed) for seed in range(5)]
    outcome = submit.submit(made)
    full = f"no more jobs of yours may be in the queue now ({limit})"
    left = Submitted(None, joined=False, full=full)
    tasks = ["7"] if room == 1 else [f"7_{index}" for index in range(room)]
    assert [row.partition("|")[0] for row in slurm_said.queued] == tasks
    assert [*outcome.values()] == [*(Submitted(job, joined=False) for job in tasks), *[left] * (5 - room)]
    for run in made[room:]:
        assert run.state().name == "not submitted" and limit in run.state().message
    folders = [path.name for path in (runs.folder / ".arrays").glob("*")]  # of what was submitted, and no others
    assert folders == ([runs.told(made[0])[-1]["token"]] if room > 1 else [])
    # Asking again submits the rest, once there is room.
    recorded.limited(slurm_said, 5, limit, job=8)
    again = submit.submit(made)
    assert [given.joined for given in again.values()] == [True] * room + [False] * (5 - room)
    assert all(given.job for given in again.values())


def test_a_limit_of_one_queue_is_none_of_another(runs, slurm_said):
    recorded.limited(slurm_said, 2, "QOSGrpSubmitJobsLimit", of="short")
    made = [runs.make(seed, partition="short") for seed in range(3)] + [runs.make(3), runs.make(4)]
    outcome = [*submit.submit(made).values()]
    assert [given.job for given in outcome] == ["7_0", "7_1", None, "8_0", "8_1"]


def test_arrays_after_one_that_did_not_fit_are_left_out(runs, slurm_said):
    slurm_said.says("scontrol show config", recorded.CONFIG.replace("= 1001", "= 2"))
    recorded.limited(slurm_said, 3, "AssocMaxSubmitJobLimit")
    outcome = submit.submit([runs.make(seed) for seed in range(7)])
    assert [given.job for given in outcome.values()] == ["7_0", "7_1", "8", None, None, None, None]
    assert len(slurm_said.commands("sbatch --parsable")) == 3  # two arrays, and the second again as one job


def test_a_job_that_may_be_there_is_not_submitted_again_for_a_limit(runs, slurm_said):
    made = [runs.make(seed) for seed in range(2)]

    def sbatch(command: list[str]) -> object:
        row = QUEUED.format(job="7_0", raw="7", comment=command[2].removeprefix("--comment="))
        slurm_said.says("squeue", recorded.table(row))
        return recorded.too_many("AssocMaxSubmitJobLimit")

    slurm_said.says("sbatch --parsable", sbatch)
    with pytest.raises(ClusterError, match="AssocMaxSubmitJobLimit"):
        submit.submit(made)
    assert len(slurm_said.commands("sbatch")) == 1


def test_a_limit_of_what_a_job_may_ask_for_is_a_refusal(runs, slurm_said):
    """Slurm says the rest of it in the same words."""
    slurm_said.says("sbatch --parsable", recorded.too_many("AssocMaxWallDurationPerJobLimit"))
    with pytest.raises(ClusterError, match="AssocMaxWallDurationPerJobLimit"):
        submit.submit([runs.make(seed) for seed in range(2)])


def test_a_queue_that_is_full_does_not_make_a_run_wrong(runs, slurm_said):
    slurm_said.says("sbatch --test-only", recorded.too_many("AssocMaxSubmitJobLimit", tested=True))
    submit.check(runs.spec(), runs.plan)


def test_an_intent_that_cannot_be_written_leaves_no_job(runs, slurm_said, capsys):
    """A real refusal to write: a limit on the size of files in the place of a full disk."""
    run = runs.make()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(InputError) as refused:
            submit.submit([run])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(refused.value).startswith(f"runs={runs.folder}: cannot write there (No space left on device); free some")
    assert slurm_said.commands("sbatch") == []
    assert runs.told(run) == []


def test_code_that_was_edited_leaves_no_job(runs, slurm_said):
    run = runs.make()
    (runs.code.path / "module.py").write_text("# edited\n")
    with pytest.raises(InputError, match="its hash has changed"):
        submit.submit([run])
    assert slurm_said.commands("sbatch") == [] and runs.told(run) == []
