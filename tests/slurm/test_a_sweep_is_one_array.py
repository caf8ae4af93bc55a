"""A multirun on a real Slurm: one array, frozen, and completed by the same command."""

import json

import pytest

SWEEP = ("--multirun", "method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")


@pytest.fixture
def queued(cluster):
    """`queued("%i")`: that column of every job in the queue, tasks of arrays one by one."""
    return lambda form: cluster.run("squeue", "--noheader", "--array", f"--format={form}").stdout.split()


def later(config_dir, cluster):
    return config_dir(cluster, additional_parameters={"begin": "now+1hour"})


def test_256_points_are_in_the_queue_and_the_command_has_returned(cluster, slurm_sslrun, config_dir, queued, tmp_path):
    sslrun = slurm_sslrun(cluster)
    folder = later(config_dir, cluster)
    words = (*SWEEP, "--config-dir", folder, f"runs={tmp_path / 'runs'}", "method.lr=0.01,0.02", "seed=range(0,128)")
    runs = sslrun(*words, "--json").json["runs"]
    assert len({run["id"] for run in runs}) == 256
    assert sorted(queued("%i")) == sorted(run["job"] for run in runs)
    assert len({job.partition("_")[0] for job in queued("%i")}) == 1
    # Each task of the array has its own run, in the order of the points.
    array = queued("%i")[0].partition("_")[0]
    assert runs[130]["job"] == f"{array}_130"
    spec = json.loads((tmp_path / "runs" / runs[130]["id"] / "spec.json").read_text())
    assert (spec["method"]["lr"], spec["seed"]) == (0.02, 2)

    before = sorted(queued("%i"))
    assert "nothing is missing" in sslrun(*words).err
    assert sorted(queued("%i")) == before


def test_the_same_command_runs_exactly_what_was_killed(cluster, slurm_sslrun, config_dir, queued, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    words = (*SWEEP, "--config-dir", later(config_dir, cluster), f"runs={tmp_path / 'runs'}", "seed=range(0,12)")
    first = sslrun(*words, "--json").json["runs"]
    killed = [first[2], first[5], first[11]]
    cluster.run("scancel", *(run["job"] for run in killed))
    until(lambda: len(queued("%i")) == 9)
    second = sslrun(*words, "--json").json["runs"]
    fresh = [run["id"] for run, old in zip(second, first, strict=True) if run["job"] != old["job"]]
    assert fresh == [run["id"] for run in killed]
    assert sorted(queued("%i")) == sorted(run["job"] for run in second)


def test_an_array_that_is_too_long_is_split_and_the_parallelism_is_kept(
    start_cluster, slurm_sslrun, config_dir, tmp_path
):
    cluster = start_cluster(nodes=1, config={"MaxArraySize": 10})
    sslrun = slurm_sslrun(cluster)
    folder = later(config_dir, cluster)
    words = (*SWEEP, "--config-dir", folder, f"runs={tmp_path / 'runs'}", "seed=range(0,26)")
    sslrun(*words, "cluster.array_parallelism=4")
    rows = cluster.run("squeue", "--noheader", "--format=%F %i %E").stdout.splitlines()
    arrays = dict(sorted((int(row.split()[0]), row.split()[1:]) for row in rows))
    assert len(arrays) == 3
    assert [fields[0].partition("_")[2] for fields in arrays.values()] == ["[0-9%4]", "[0-9%4]", "[0-5%4]"]
    ids = list(arrays)
    # Four at once over all three: each array waits for the one before.
    assert [str(ids[0]) in arrays[ids[1]][1], str(ids[1]) in arrays[ids[2]][1]] == [True, True]
    cluster.stop()


def test_cancelling_a_sweep_cancels_its_points(cluster, slurm_sslrun, config_dir, queued, tmp_path, until):
    sslrun = slurm_sslrun(cluster)
    runs = f"runs={tmp_path / 'runs'}"
    words = (*SWEEP, "--config-dir", later(config_dir, cluster), runs, "seed=range(0,5)", "--json")
    name = sslrun(*words).json["sweep"]
    sslrun("cancel", name, runs)
    until(lambda: queued("%i") == [])
    states = {row["state"] for row in sslrun("status", runs, "--json").json}
    assert states == {"cancelled"}
