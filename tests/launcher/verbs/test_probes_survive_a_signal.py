"""A run that is told to stop while a probe judges it, from the command line to what `show` says."""

import signal

RUN = (
    "method=rotnet", "recipe=tiny", "method.epochs=2", "method.workers=0", "method.checkpoint_every=1000",
    "probes=[knn,logistic]", "logistic.iterations=6", "logistic.eval_every=0.5",
)  # fmt: skip


def test_stopped_by_a_signal_in_the_midst_of_an_epoch_it_ends_as_one_that_nobody_stopped(
    sslrun, signalled, watched, undisturbed
):
    stop = {"number": signal.SIGTERM, "stage": "logistic regression", "step": 9 // 2 + 1}
    answer = signalled(*RUN, "tasks_per_node=2", f"runs={watched.runs}", **stop)
    assert answer.code == 130 and watched.gone()
    shown = sslrun.show(watched.path)
    assert shown["step"] == 5 and not shown["evals"]
    sslrun("resume", watched.path)
    whole, shown = sslrun.show(undisturbed(2, RUN)), sslrun.show(watched.path)
    assert shown["evals"] == whole["evals"] and {"knn", "logistic(iterations=6)"} <= {*shown["evals"]}
    assert shown["state_digest"] == whole["state_digest"] and shown["lost_steps"] == 0
    steps = [event["step"] for event in watched.events("eval") if event["protocol"].startswith("logistic")]
    assert steps == [5, 9, 14, 18]


def test_plan_says_how_often_each_judges(sslrun):
    said = " ".join(sslrun("plan", *RUN).out.split())
    assert "judged as it trains, which the hours leave out: knn at the end, logistic every 0.5 epochs" in said
    assert "judged as it trains" not in sslrun("plan", *RUN[:2]).out
