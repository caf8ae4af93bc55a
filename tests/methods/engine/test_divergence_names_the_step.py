"""A loss that is not a number ends the run, and says where to look."""

import re

BURST = ("method=rotnet", "recipe=tiny", "method.lr=1e30", "method.schedule=constant", "tasks_per_node=2")


def test_it_names_step_rank_samples_and_the_last_good_checkpoint(sslrun, watched):
    line = sslrun(*BURST, "method.checkpoint_every=1", f"runs={watched.runs}", code=4).complaint
    step, rank, samples, last = re.search(
        r"not a number at step (\d+) on rank (\d+), samples ([\d, .]+); the last good checkpoint is (\w+)\.", line
    ).groups()
    assert int(rank) in (0, 1)
    assert len(samples.removesuffix(", ...").split(", ")) == 16  # the rank's half of a batch of 32
    assert all(int(sample) < 304 for sample in samples.removesuffix(", ...").split(", "))
    assert "lower method.lr" in line
    shown = sslrun.show(watched.path)
    assert shown["state"] == "failed"
    assert last == ("none" if shown["checkpoint"] is None else shown["checkpoint"].rpartition("/")[2])
    assert shown["step"] < int(step)
    assert watched.gone()

    refused = sslrun("resume", watched.path, code=4)
    assert f"step {step}" in refused.complaint
    assert "--force" in refused.complaint
    assert len(watched.events("start")) == 1
    assert f"at step {step} " in sslrun("resume", watched.path, "--force", code=4).complaint
    assert len(watched.events("start")) == 2


def test_the_last_step_before_a_clustering_is_no_exception(sslrun, watched):
    two_steps_an_epoch = ("method.global_batch=152", "method.lr=1e30", "method.schedule=constant")
    line = sslrun("method=deepercluster", "recipe=tiny", *two_steps_an_epoch, f"runs={watched.runs}", code=4).complaint
    assert "the loss is not a number at step 2 on rank 0" in line
