"""Stopped or killed in the middle of a clustering, a run goes on in its middle, to the same state."""

import shutil
import signal

import pytest

IMAGES = 1024  # four batches of the extraction: two a rank, where there are two
# Two clusterings, before steps 0 and 2; features and centroids go to disk after every batch and every iteration.
CLUSTERING = (
    "method=deepercluster", "recipe=tiny", f"data.images={IMAGES}", "method.image_size=32", "method.rotation_epochs=0",
    "method.epochs=2", "method.global_batch=512", "method.clusters=100", "method.pca_dim=64",
    "method.kmeans_iterations=8", "method.workers=0",
)  # fmt: skip
KEPT = (*CLUSTERING, "method.keep_work_s=0")


@pytest.fixture
def life(signalled, watched):
    """`life(launch, number=..., ...)`: the exit code of a start in which a rank signals itself or the launcher;
    `launch` are its overrides, None: it is started again."""

    def start(launch: tuple[str, ...] | None, *, ranks: int = 1, **when: object) -> int:
        words = (*launch, f"tasks_per_node={ranks}", f"runs={watched.runs}") if launch else ("resume", watched.path)
        code = signalled(*words, **when).code
        assert watched.gone()
        return code

    return start


@pytest.fixture
def finished(sslrun, watched):
    """`finished()`: what `show` says of the run once it was started again and has ended."""

    def resume() -> dict:
        sslrun("resume", watched.path)
        shown = sslrun.show(watched.path)
        assert shown["state"] == "done"
        assert not (watched.path / "features").exists()
        return shown

    return resume


def files(watched, step, name):
    return sorted(watched.path.glob(f"features/step_{step:08d}/{name}.*.safetensors"))


def images_in(watched, step):
    ranges = (path.name.split(".")[1].split("-") for path in files(watched, step, "features"))
    return sum(int(last) - int(first) for first, last in ranges)


def test_stopped_while_extracting_and_killed_in_kmeans(life, finished, watched, undisturbed, sslrun):
    extracting = {"stage": "features", "step": 0, "kept": "features"}
    assert life(KEPT, number=signal.SIGTERM, **extracting) == 130
    (first,) = watched.events("work")
    assert (first["step"], first["kept"], first["restored"]) == (0, True, 0)
    assert 0 < first["extracted"] < IMAGES
    assert images_in(watched, 0) == first["extracted"]
    leftover = shutil.copytree(watched.path / "features" / "step_00000000", watched.path / "features" / ".gone-1")
    answer = sslrun("prune", watched.path, "--yes", "--json").json
    assert [(item["path"], item["what"]) for item in answer["deleted"]] == [(str(leftover), "temporary folder")]
    assert images_in(watched, 0) == first["extracted"]

    life(None, number=signal.SIGKILL, stage="sub-clusters", step=0, kept="sub-clusters")
    log = (watched.path / "logs" / "rank0.log").read_text()
    assert f"features: {first['extracted']} images restored, {IMAGES - first['extracted']} extracted" in log
    kept = {path.name.split(".")[0]: int(path.name.split(".")[1].split("-")[0]) for path in files(watched, 0, "*")}

    shown = finished()
    third, fourth = (event for event in watched.events("work") if event["generation"] == 3)
    assert (third["step"], third["restored"], third["extracted"]) == (0, IMAGES, 0)
    assert third["resumed"] == {name: kept[name] for name in third["resumed"]}
    assert third["resumed"]["whitening"] == 1 and third["resumed"]["super-clusters"] > 1
    assert third["resumed"]["sub-clusters"] >= 1
    assert (fourth["step"], fourth["restored"], fourth["extracted"], fourth["resumed"]) == (2, 0, IMAGES, {})
    assert shown["lost_steps"] == 0
    assert shown["state_digest"] == sslrun.show(undisturbed(1, CLUSTERING))["state_digest"]


@pytest.mark.fault
@pytest.mark.slow
def test_two_ranks_one_killed_while_extracting_and_one_told_to_stop_in_kmeans(
    life, finished, watched, undisturbed, sslrun
):
    extracting = {"stage": "features", "step": 2, "kept": "features"}
    life(KEPT, ranks=2, rank=1, whom="rank", number=signal.SIGKILL, **extracting)
    there = images_in(watched, 2)
    assert 0 < there < IMAGES

    clustering = {"stage": "super-clusters", "step": 2, "kept": "super-clusters"}
    assert life(None, rank=0, whom="rank", number=signal.SIGTERM, **clustering) == 130
    second = watched.events("work")[-1]
    assert (second["restored"], second["extracted"]) == (there, IMAGES - there)
    damaged = files(watched, 2, "features")[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    first, last = map(int, damaged.name.split(".")[1].split("-"))

    shown = finished()
    assert f"{damaged.name} is damaged" in (watched.path / "logs" / "rank0.log").read_text()
    third = watched.events("work")[-1]
    assert (third["restored"], third["extracted"]) == (IMAGES - (last - first), last - first)
    assert third["resumed"]["super-clusters"] >= 1
    assert shown["state_digest"] == sslrun.show(undisturbed(2, CLUSTERING))["state_digest"]


def test_what_is_not_kept_is_done_again_and_booked_as_lost(life, finished, watched, undisturbed, sslrun):
    unkept = (*CLUSTERING, "method.keep_work_s=null")
    assert life(unkept, number=signal.SIGTERM, step=0, stage="sub-clusters") == 130
    assert not (watched.path / "features").exists()

    shown = finished()
    first, second, *_ = watched.events("work")
    told = [(event["kept"], event["why"], event["extracted"]) for event in (first, second)]
    assert told == 2 * [(False, "as it was asked", IMAGES)]
    (restored,) = watched.events("restored")
    assert restored["lost_steps"] == 0 and restored["lost_seconds"] > 0
    assert shown["state_digest"] == sslrun.show(undisturbed(1, CLUSTERING))["state_digest"]
