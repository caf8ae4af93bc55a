"""Stopped or killed in the middle of a clustering, a run goes on in its middle, to the same bytes."""

import signal

CLUSTERING = (
    "method=deepclusterv2", "recipe=tiny", "data.images=512", "method.epochs=2", "method.global_batch=128",
    "method.prototypes=100", "method.kmeans_iterations=20", "method.workers=0",
)  # fmt: skip
KEPT = (*CLUSTERING, "method.keep_work_s=0")


def test_stopped_in_the_first_clustering_and_killed_in_the_second(signalled, watched, sslrun, undisturbed):
    first = {"stage": "k-means-1", "step": 0, "kept": "k-means-1"}
    launch = (*KEPT, "tasks_per_node=1", f"runs={watched.runs}")
    assert signalled(*launch, number=signal.SIGTERM, **first).code == 130
    assert watched.gone()
    assert [event["step"] for event in watched.events("work")] == [0]

    signalled("resume", watched.path, number=signal.SIGKILL, stage="k-means-2", step=4, kept="k-means-2")
    assert watched.gone()
    assert "k-means-1: goes on in iteration" in (watched.path / "logs" / "rank0.log").read_text()

    sslrun("resume", watched.path)
    shown = sslrun.show(watched.path)
    assert shown["state"] == "done" and not (watched.path / "features").exists()
    resumed = [event["resumed"] for event in watched.events("work")]
    assert any("k-means-1" in each for each in resumed) and "k-means-2" in resumed[-1]
    assert shown["state_digest"] == sslrun.show(undisturbed(1, CLUSTERING))["state_digest"]
