"""A run starts from another's backbone, and no longer needs that run once it has saved itself."""

import shutil
import signal


def test_it_resumes_without_the_run_that_it_started_from(sslrun, watched, undisturbed, signalled, tmp_path):
    source = shutil.copytree(undisturbed(1, ("method=rotnet", "recipe=tiny")), tmp_path / "source")
    launch = ("method=deepercluster", "recipe=tiny", "method.epochs=10", f"init_from={source}")
    assert signalled(*launch, f"runs={watched.runs}", number=signal.SIGINT, after=4).code == 130
    shutil.rmtree(source)
    assert sslrun("resume", watched.path, "--json").json["state"] == "done"
