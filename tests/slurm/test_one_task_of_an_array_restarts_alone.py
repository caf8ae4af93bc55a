"""One task of an array has the array's own number, and whoever puts that number back into the queue puts back all."""

from contextlib import ExitStack

import pytest

pytestmark = pytest.mark.slow

SWEEP = ("--multirun", "method=rotnet", "recipe=tiny", "method.epochs=40", "cluster=fake", "tasks_per_node=1")


def test_what_one_point_of_a_sweep_does_is_no_other_points_business_and_waiting_ends_with_the_last(
    cluster, slurm_sslrun, config_dir, tmp_path, ledger, standing, until
):
    sslrun, runs = slurm_sslrun(cluster), tmp_path / "runs"
    words = (*SWEEP, "seed=0,1", "--config-dir", config_dir(cluster, cpus_per_task=1), f"runs={runs}")
    waiting = sslrun.start(*words, "--wait", "--json")
    until(
        lambda: len(list(runs.glob("rotnet*"))) == 2 and all(ledger(run, "checkpoint") for run in runs.glob("rotnet*"))
    )
    first, second = sorted(runs.glob("rotnet*"))

    def tell(run):
        with standing(run):  # so that it is in the middle when it hears of it
            cluster.run("scancel", "--signal=USR2", ledger(run, "submitted")[0]["job"])
        until(lambda: ledger(run, "restored"))

    def lives():
        return [(len(ledger(run, "start")), len(ledger(run, "end"))) for run in (first, second)]

    with ExitStack() as still:
        still.enter_context(standing(second))
        tell(first)
        assert lives() == [(2, 1), (1, 0)]
        with standing(first):
            still.close()
            tell(second)
            assert lives() == [(2, 1), (2, 1)]
            assert [sslrun.show(run)["state"] for run in (first, second)] == ["running", "running"]
    answer = sslrun.finish(waiting)
    assert [run["state"] for run in answer.json["runs"]] == ["done", "done"], answer
    assert all(run["id"] in answer.err for run in answer.json["runs"])
    assert [sslrun.show(run)["restarts"] for run in (first, second)] == [{"asked": 1}, {"asked": 1}]
