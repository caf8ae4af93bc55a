"""A run starts from another's backbone as its ledger says, and no longer needs that run once it has saved itself."""

import json
import shutil
import signal

SOURCE, PUPIL = ("method=rotnet", "recipe=tiny"), ("method=deepercluster", "recipe=tiny", "method.epochs=10")


def events(run, name):
    rows = [json.loads(line) for file in (run / "events").iterdir() for line in file.read_text().splitlines()]
    return [row for row in rows if row["event"] == name]


def test_it_resumes_without_the_run_that_it_started_from(sslrun, watched, undisturbed, signalled, tmp_path):
    done = undisturbed(1, SOURCE)
    source = shutil.copytree(done, tmp_path / "source")
    launch = (*PUPIL, f"init_from={source}", f"runs={watched.runs}")
    assert signalled(*launch, number=signal.SIGINT, after=4).code == 130
    (taken,) = events(watched.path, "pinned")
    shown = sslrun.show(done)
    assert (taken["step"], taken["digest"]) == (shown["step"], shown["state_digest"])
    assert json.loads((watched.path / "spec.json").read_text())["init_from"]["step"] is None
    shutil.rmtree(source)
    assert sslrun("resume", watched.path, "--json").json["state"] == "done"
