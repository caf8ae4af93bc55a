"""Stopped or killed in the middle of a clustering, a run goes on in its middle, to the same state."""

import json
import os
import shutil
import signal

import pytest

IMAGES = 1520
# Two clusterings, before steps 0 and 2; features and centroids go to disk after every batch and every iteration.
CLUSTERING = (
    "method=deepercluster", "recipe=tiny", f"data.images={IMAGES}", "method.image_size=32", "method.rotation_epochs=0",
    "method.epochs=2", "method.global_batch=760", "method.clusters=300", "method.pca_dim=64",
    "method.kmeans_iterations=15", "method.workers=0",
)  # fmt: skip
# k-means long enough to be seen from outside, where nothing is written that would tell of it.
MANY = 6080
LONG = (*CLUSTERING, f"data.images={MANY}", "method.kmeans_iterations=150")
KEPT = (*CLUSTERING, "method.keep_work_s=0")


class Life:
    """A run from one start to its end, seen from outside."""

    def __init__(self, sslrun, watched, launcher):
        self.sslrun, self.watched, self.launcher = sslrun, watched, launcher

    def wait_for(self, until, step, name):
        """Until a file of that name lies in the store of `step`."""

        def there():
            assert self.launcher.poll() is None, self.launcher.communicate()
            return any(self.watched.runs.glob(f"*/features/step_{step:08d}/{name}*.safetensors"))

        until(there, poll=0.002, seconds=300)

    def stop(self, victim, number):
        """Signal the rank `victim`, or the launcher for None; returns the launcher's exit code once all are gone."""
        pids = sorted(self.watched.processes())
        os.kill(self.launcher.pid if victim is None else pids[victim], number)
        code = self.sslrun.finish(self.launcher).code
        assert self.watched.gone(seconds=60)
        return code


@pytest.fixture
def live(sslrun, watched):
    """`live(overrides, ranks)` starts a run; `live()` starts it again."""

    def start(overrides=None, ranks=1):
        words = (*overrides, f"tasks_per_node={ranks}", f"runs={watched.runs}") if overrides else (watched.path,)
        return Life(sslrun, watched, sslrun.start(*words) if overrides else sslrun.start("resume", *words))

    return start


def finish(life):
    answer = life.sslrun.finish(life.launcher)
    assert answer.code == 0, answer
    shown = life.sslrun.show(life.watched.path)
    assert shown["state"] == "done"
    assert not (life.watched.path / "features").exists()
    return shown


def files(watched, step, name):
    return sorted(watched.path.glob(f"features/step_{step:08d}/{name}.*.safetensors"))


def images_in(watched, step):
    ranges = (path.name.split(".")[1].split("-") for path in files(watched, step, "features"))
    return sum(int(last) - int(first) for first, last in ranges)


def test_stopped_while_extracting_and_killed_in_kmeans(live, watched, until, undisturbed, sslrun):
    life = live(KEPT)
    life.wait_for(until, 0, "features")
    assert life.stop(None, signal.SIGTERM) == 130
    (first,) = watched.events("work")
    assert (first["step"], first["kept"], first["restored"]) == (0, True, 0)
    assert 0 < first["extracted"] < IMAGES, "it was stopped too late"
    assert images_in(watched, 0) == first["extracted"]
    leftover = shutil.copytree(watched.path / "features" / "step_00000000", watched.path / "features" / ".gone-1")
    answer = sslrun("prune", watched.path, "--yes", "--json").json
    assert [(item["path"], item["what"]) for item in answer["deleted"]] == [(str(leftover), "temporary folder")]
    assert images_in(watched, 0) == first["extracted"]

    life = live()
    life.wait_for(until, 0, "sub-clusters")
    life.stop(None, signal.SIGKILL)
    log = (watched.path / "logs" / "rank0.log").read_text()
    assert f"features: {first['extracted']} images restored, {IMAGES - first['extracted']} extracted" in log
    kept = {path.name.split(".")[0]: int(path.name.split(".")[1].split("-")[0]) for path in files(watched, 0, "*")}

    shown = finish(live())
    third, fourth = (event for event in watched.events("work") if event["generation"] == 3)
    assert (third["step"], third["restored"], third["extracted"]) == (0, IMAGES, 0)
    assert third["resumed"] == {name: kept[name] for name in third["resumed"]}
    assert third["resumed"]["whitening"] == 1 and third["resumed"]["super-clusters"] > 1
    assert third["resumed"]["sub-clusters"] >= 1
    assert (fourth["step"], fourth["restored"], fourth["extracted"], fourth["resumed"]) == (2, 0, IMAGES, {})
    assert shown["lost_steps"] == 0
    assert shown["state_digest"] == sslrun.show(undisturbed(1, CLUSTERING))["state_digest"]


def test_two_ranks_one_killed_while_extracting_and_one_told_to_stop_in_kmeans(
    live, watched, until, undisturbed, sslrun
):
    life = live(KEPT, ranks=2)
    life.wait_for(until, 2, "features")
    life.stop(1, signal.SIGKILL)
    there = images_in(watched, 2)
    assert 0 < there < IMAGES, "it was killed too late"

    life = live()
    life.wait_for(until, 2, "super-clusters")
    assert life.stop(0, signal.SIGTERM) == 130
    second = watched.events("work")[-1]
    assert (second["restored"], second["extracted"]) == (there, IMAGES - there)
    damaged = files(watched, 2, "features")[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    first, last = map(int, damaged.name.split(".")[1].split("-"))

    shown = finish(live())
    assert f"{damaged.name} is damaged" in (watched.path / "logs" / "rank0.log").read_text()
    third = watched.events("work")[-1]
    assert (third["restored"], third["extracted"]) == (IMAGES - (last - first), last - first)
    assert third["resumed"]["super-clusters"] >= 1
    assert shown["state_digest"] == sslrun.show(undisturbed(2, CLUSTERING))["state_digest"]


def test_what_is_not_kept_is_done_again_and_booked_as_lost(live, watched, until, undisturbed, sslrun):
    life = live((*LONG, "method.keep_work_s=null"))

    def clusters():
        assert life.launcher.poll() is None
        progress = watched.path / "progress.json"
        return progress.exists() and "clusters" in json.loads(progress.read_text())["stage"]

    until(clusters, poll=0.01, seconds=300)
    assert life.stop(None, signal.SIGTERM) == 130
    assert not (watched.path / "features").exists()

    shown = finish(live())
    first, second, *_ = watched.events("work")
    assert [(e["kept"], e["why"], e["extracted"]) for e in (first, second)] == 2 * [(False, "as it was asked", MANY)]
    (restored,) = watched.events("restored")
    assert restored["lost_steps"] == 0 and restored["lost_seconds"] > 0
    assert shown["state_digest"] == sslrun.show(undisturbed(1, LONG))["state_digest"]
