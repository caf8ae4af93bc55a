"""`sslrun eval RUN --plan` says what an evaluation would take, and leaves everything as it was."""

import pytest


@pytest.fixture(scope="module")
def run(undisturbed, journey):
    return undisturbed(1, journey)


def names(run):
    return sorted(path.relative_to(run) for path in run.rglob("*"))


def test_of_a_run_on_this_machine_and_on_a_cluster(sslrun, run):
    before, words = names(run), ("eval", run, "protocol=finetune,knn", "finetune.epochs=3", "finetune.batch=8")
    here = sslrun(*words, "tasks_per_node=2", "--plan", "--json").json
    assert (here["run"], here["ranks"], here["sbatch"]) == (f"{run.name}/evals/finetune+knn-1", 2, None)
    assert here["protocols"]["finetune"]["images_a_rank"] == 4 and here["disk_gb"] > 0
    there = sslrun(*words, "cluster=generic", "nodes=2", "tasks_per_node=4", "--plan").out
    assert "ranks         8" in there and "of 8 images, 1 a rank" in there and "#SBATCH --nodes=2" in there
    assert names(run) == before


def test_a_batch_that_the_ranks_do_not_share_is_refused_with_and_without_it(sslrun, run):
    words = ("eval", run, "protocol=finetune", "finetune.batch=3", "tasks_per_node=4")
    before = names(run)
    for more in (("--plan",), ()):
        answer = sslrun(*words, *more, code=2)
        assert "finetune.batch=3: 3 images a step do not share out to 4 ranks; use fewer ranks" in answer.err
    assert names(run) == before
