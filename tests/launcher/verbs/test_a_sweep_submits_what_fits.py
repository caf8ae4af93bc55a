"""Of a sweep too long for the queue what fits is submitted; the rest is said, and waits for the next call."""

import json

import pytest
import recorded

from launcher import cli
from launcher.start.executor import Executor

SMALL = ("cluster.gpus_per_node=0", "cluster.cpus_per_node=1", "cluster.timeout_min=5", "tasks_per_node=1")
SWEEP = ("--multirun", "method=rotnet", "recipe=tiny", "cluster=generic", *SMALL, "seed=range(0,5)")
WAITS = "the same command submits them once some have ended"


@pytest.fixture
def typed(slurm_said, monkeypatch, capsys, tmp_path):
    """`typed(word, ...)`: (exit code, the answer to --json, what it said besides), inside this process."""
    monkeypatch.setattr(Executor, "affinity", classmethod(lambda cls: 2))
    slurm_said.cluster()
    slurm_said.says("squeue", "")

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, f"runs={tmp_path / 'runs'}", "--json"])
        said = capsys.readouterr()
        return ended.value.code or 0, json.loads(said.out), said.err

    return run


def states(rows) -> list[str]:
    return [row["state"] for row in rows]


def test_five_points_where_three_fit(slurm_said, typed):
    recorded.limited(slurm_said, 3, "AssocMaxSubmitJobLimit")
    code, answer, said = typed(*SWEEP)
    assert (code, states(answer["runs"])) == (3, ["pending"] * 3 + ["not submitted"] * 2)
    assert [row["job"] for row in answer["runs"]] == ["7_0", "7_1", "7_2", None, None]
    assert "submitted 3 runs as job 7\n" in said and "3 pending, 2 not submitted" in said
    assert "2 of 5 runs are not submitted: no more jobs of yours may be in the queue now (Ass" in said and WAITS in said
    # While the queue is full, nothing changes; status says of each how it stands, and why.
    code, _, said = typed(*SWEEP)
    assert code == 3 and "2 of 5 runs are not submitted" in said and "nothing is missing" not in said
    _, rows, _ = typed("status", "--where", "state=not submitted")
    assert len(rows) == 2 and all("AssocMaxSubmitJobLimit" in row["message"] for row in rows)
    # Once there is room, the same command submits the others.
    recorded.limited(slurm_said, 5, "AssocMaxSubmitJobLimit", job=8)
    code, answer, said = typed(*SWEEP)
    assert (code, states(answer["runs"])) == (0, ["pending"] * 5)
    assert [row["job"] for row in answer["runs"]] == ["7_0", "7_1", "7_2", "8_0", "8_1"]
    assert "submitted 2 runs as job 8\n" in said and "not submitted" not in said


def test_where_the_queue_says_nothing_no_run_counts_as_in_it(slurm_said, typed):
    """What the ledgers say last is that the runs are waiting; their jobs may be gone."""
    recorded.limited(slurm_said, 5, "AssocMaxSubmitJobLimit")
    typed(*SWEEP)
    slurm_said.says("squeue", recorded.Refused("slurm_load_jobs error: Unable to contact slurm controller"))
    code, answer, said = typed(*SWEEP)
    assert code == 3 == answer["exit_code"]
    assert "Unable to contact slurm controller" in answer["error"] and "nothing is missing" not in said


def test_what_is_not_submitted_is_not_judged(slurm_said, typed):
    """Nor is the queue asked to take evaluations behind jobs that there are not."""
    recorded.limited(slurm_said, 3, "QOSGrpSubmitJobsLimit")
    code, _, said = typed(*SWEEP[:-1], "seed=0,1", "eval_after=knn")
    assert code == 0 and "submitted 2 runs as job 7\n" in said
    assert said.count("after job 7_") == 1 and said.count("/evals/knn-1 is not submitted") == 1
    asked = len(slurm_said.commands("sbatch"))
    recorded.limited(slurm_said, 0, "QOSGrpSubmitJobsLimit")
    code, _, said = typed(*SWEEP[:-1], "seed=8,9", "eval_after=knn")
    assert code == 3 and "evals" not in said
    assert all("evals" not in " ".join(words) for words in slurm_said.commands("sbatch")[asked:])


def test_a_run_that_the_queue_does_not_take_says_so(slurm_said, typed):
    recorded.limited(slurm_said, 0, "AssocGrpSubmitJobsLimit")
    code, answer, said = typed(*SWEEP[1:-1], "seed=0")
    assert code == 3 and "is not submitted: no more jobs of yours may be in the queue now (AssocGrp" in said
    _, (row,), _ = typed("status")
    assert row["state"] == "not submitted"
    recorded.limited(slurm_said, 1, "AssocGrpSubmitJobsLimit")
    code, answer, _ = typed(*SWEEP[1:-1], "seed=0")
    assert (code, answer["state"], answer["job"]) == (0, "pending", "7")
