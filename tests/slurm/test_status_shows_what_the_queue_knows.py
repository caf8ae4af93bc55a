"""`sslrun status` adds what Slurm knows, asked once; without a controller it says so and shows the ledgers' word."""

import re
from datetime import datetime

import pytest

SHAPE = ("nodes=1", "tasks_per_node=1", "cluster=fake", "cluster.cpus_per_task=1")
POINTS = 100


@pytest.fixture
def login(cluster, slurm_sslrun):
    return cluster, slurm_sslrun(cluster)


def table(sslrun, runs, columns=120):
    sslrun.environment["COLUMNS"] = str(columns)
    return sslrun("status", f"runs={runs}")


def test_100_pending_runs_say_what_they_wait_for_with_and_without_a_controller(
    login, config_dir, pings_alone, tmp_path, until
):
    cluster, sslrun = login
    later = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    runs = tmp_path / "runs"
    words = ("--multirun", "method=rotnet", "recipe=tiny", *SHAPE, "--config-dir", later, f"runs={runs}")
    jobs = {run["id"]: run["job"] for run in sslrun(*words, f"seed=range(0,{POINTS})", "--json").json["runs"]}

    def pending():
        rows = sslrun("status", f"runs={runs}", "--json").json
        assert {row["id"]: row["job"] for row in rows} == jobs
        assert {row["state"] for row in rows} == {"pending"}
        # Slurm has no reason yet where its scheduler has not looked at a job.
        return rows if {row["why_pending"] for row in rows} == {"BeginTime"} else None

    rows = until(pending)
    wait = datetime.fromisoformat(rows[0]["expected_start"]) - datetime.now()
    assert 0 < wait.total_seconds() <= 3600
    text = table(sslrun, runs, columns=80).out
    # The words give way to a date where the time is tomorrow's.
    assert len(re.findall(r" its begin (?:time|\.{3}|…), ", text)) == POINTS and text.count("BeginTime") == 1
    assert f" and {POINTS - 1} more: waits for its begin time (BeginTime); it starts by itself: " in text

    cluster.stop_controller()
    called = pings_alone(sslrun)
    answer = table(sslrun, runs)
    assert answer.out.splitlines()[-1] == f"{POINTS} runs: {POINTS} pending in {runs}"
    assert "slurmctld does not answer" in answer.err and "ledger" in answer.err
    assert len(answer.err.splitlines()) == 1
    answer = sslrun("status", f"runs={runs}", "--json", "--where", "state!=pending")
    assert answer.json == [] and "slurmctld does not answer" in answer.err
    assert called() == []


def test_a_running_run_says_where_it_is_and_how_long_it_may(login, config_dir, watched, until):
    cluster, sslrun = login
    endless = ("method=rotnet", "recipe=tiny", "method.epochs=1000", *SHAPE)
    folder = config_dir(cluster, timeout_min=600)
    job = sslrun(*endless, "--config-dir", folder, f"runs={watched.runs}", "--json").json["job"]
    until(lambda: watched.events("checkpoint"))

    def row():
        return sslrun("status", f"runs={watched.runs}", "--json").json[0]

    now = until(lambda: (row_now := row())["images_per_s"] and row_now)
    assert (now["state"], now["job"], now["nodelist"]) == ("running", job, "n1")
    assert now["job_left"].startswith("9:") and now["stage"]
    assert now["step"] >= 3 and now["checkpoint_step"] >= 3 and now["seconds_left"] > 0
    text = table(sslrun, watched.runs, columns=200).out
    assert " n1 " in text and " 9:" in text and " ago" in text

    cluster.stop_controller()
    assert row()["state"] == "running"  # it holds its lock and says so itself
    cluster.start_controller()
    until(lambda: row()["job_left"])
    sslrun("cancel", watched.path, "--yes")
    assert row()["state"] == "cancelled"
    assert (row()["job"], row()["job_left"]) == (None, "")


def test_a_job_that_ended_before_its_run_began_is_explained(login, config_dir, tmp_path, until):
    cluster, sslrun = login
    later = config_dir(cluster, additional_parameters={"begin": "now+1hour"})
    runs = tmp_path / "runs"
    words = ("method=rotnet", "recipe=tiny", *SHAPE, "--config-dir", later, f"runs={runs}", "--json")
    launched = sslrun(*words).json
    cluster.run("scancel", launched["job"])
    until(lambda: not cluster.run("squeue", "--noheader").stdout)
    answer = table(sslrun, runs)
    (line,) = [line for line in answer.out.splitlines() if line.startswith(f"{launched['id']}: ")]
    assert f"job {launched['job']} ended before the run began: CANCELLED" in line
    (row,) = sslrun("status", f"runs={runs}", "--json").json
    assert (row["state"], row["lost_job"]) == ("failed", launched["job"])
    assert sslrun.show(runs / launched["id"])["message"] == row["message"]
