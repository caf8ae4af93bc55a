"""One run has one job, one owner, and the spec and the code of its submission; all else is refused with one line."""

import json
import os
from pathlib import Path

import pytest

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1", "--json")
LATER = "cluster.additional_parameters.begin=now+1hour"


@pytest.fixture(scope="module")
def typed(cluster, slurm_sslrun, config_dir):
    return slurm_sslrun(cluster), (*RUN, "--config-dir", config_dir(cluster))


@pytest.fixture
def never_began(cluster, typed, tmp_path) -> tuple[Path, tuple]:
    """(a run whose only job was cancelled while it waited, the line that made it)."""
    sslrun, words = typed
    line = (*words, f"runs={tmp_path / 'runs'}")
    made = sslrun(*line, LATER).json
    cluster.run("scancel", made["job"])
    return Path(made["path"]), line


@pytest.fixture
def refused(cluster, typed):
    """`refused(words, part, ...)`: with one line that holds the parts, and no job."""
    sslrun, _ = typed

    def check(words: tuple, *parts: str) -> None:
        answer = sslrun(*words, code=2)
        assert answer.err.splitlines() == [answer.complaint]
        assert all(part in answer.complaint for part in parts), answer.complaint
        assert cluster.run("squeue", "--noheader").stdout == ""

    return check


def test_several_at_the_same_time_make_one_job(cluster, typed, tmp_path):
    sslrun, words = typed
    started = [sslrun.start(*words, LATER, f"runs={tmp_path}") for _ in range(4)]
    answers = [sslrun.finish(process) for process in started]
    assert [answer.code for answer in answers] == [0, 0, 0, 0], answers
    assert {answer.json["job"] for answer in answers} == set(cluster.run("squeue", "-ho%i").stdout.split())
    assert sorted(answer.json["joined"] for answer in answers) == [False, True, True, True]


def test_the_run_of_somebody_else(never_began, refused):
    run, line = never_began
    if os.geteuid():
        pytest.skip("giving a folder away takes root")
    for path in (run, *run.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    said = (f"runs={run.parent}", "belongs to user 65534, not to you", "choose a folder of your own")
    refused(line, *said)
    refused(("resume", run), *said)


def test_a_spec_that_was_edited(never_began, typed, refused):
    run, line = never_began
    edited = json.loads((run / "spec.json").read_text())
    edited["method"]["epochs"] = 3
    (run / "spec.json").write_text(json.dumps(edited))
    said = (f"{run}/spec.json", "it was edited after the run was submitted", "start a new run")
    refused(line, *said)
    refused(("resume", run), *said)
    (run / "spec.json").write_text("{")
    refused(("resume", run), f"{run}/spec.json")
    sslrun, _ = typed
    assert f"{run.name}: {run}/spec.json" in sslrun("status", f"runs={run.parent}").out


def test_a_spec_that_was_edited_in_the_queue_ends_the_job_at_once(cluster, typed, tmp_path, until):
    sslrun, words = typed
    queued = sslrun(*words, LATER, f"runs={tmp_path}").json
    spec = Path(queued["path"]) / "spec.json"
    good = spec.read_text()
    edited = json.loads(good)
    edited["method"]["epochs"] = 3
    spec.write_text(json.dumps(edited))
    cluster.run("scontrol", "update", f"JobId={queued['job']}", "StartTime=now")
    until(lambda: not cluster.run("squeue", "--noheader").stdout)
    spec.write_text(good)
    shown = sslrun.show(queued["path"])
    assert shown["state"] == "failed" and "it was edited after the run was submitted" in shown["message"]
    assert f"{queued['id']}: {shown['message']}\n" in sslrun("status", f"runs={tmp_path}").out


def test_code_that_was_edited(never_began, refused):
    run, line = never_began
    file = run / "code" / "methods" / "rotnet" / "trainer.py"
    file.chmod(0o600)
    file.write_text(file.read_text() + "\n# edited\n")
    said = (f"code={run}/code", "its hash has changed", "--code=current")
    refused(line, *said)
    refused(("resume", run), *said)


def test_a_ledger_that_is_gone(never_began, refused):
    run, line = never_began
    for file in (run / "events").iterdir():
        file.unlink()
    refused(line, f"{run}/events", "--code=current")
