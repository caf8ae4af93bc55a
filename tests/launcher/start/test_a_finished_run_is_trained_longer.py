"""`continue_from`: what a run of two epochs is after two more is what a run of four is, byte for byte."""

import json
import shutil
import signal

import pytest

CONSTANT = ("method.schedule=constant", "method.keep_checkpoints=9")


def overrides(small, method, epochs):
    """With a save every two steps of the four of an epoch; whatever moves with time stands still."""
    return (
        *(word for word in small(method) if not word.startswith("method.epochs=")),
        f"method.epochs={epochs}",
        *CONSTANT,
    )


def saved(run, step):
    """{file: its hash} of the checkpoint at `step`."""
    manifest = json.loads((run / "checkpoints" / f"step_{step:08d}" / "manifest.json").read_text())
    return {name: entry["sha256"] for name, entry in manifest["files"].items()}


@pytest.mark.parametrize(("method", "ranks"), [("rotnet", 1), ("deepercluster", 2), ("swav", 2)])
def test_it_is_the_run_that_would_have_been_longer_from_the_beginning(
    sslrun, watched, small, undisturbed, method, ranks
):
    first = undisturbed(ranks, overrides(small, method, 1))
    whole = undisturbed(ranks, overrides(small, method, 2))
    launch = (*overrides(small, method, 2), f"tasks_per_node={ranks}", f"continue_from={first}", f"runs={watched.runs}")
    answer = sslrun(*launch, "--json")
    longer = watched.path
    for step in (6, 8):
        assert saved(longer, step) == saved(whole, step)
    assert not (longer / "checkpoints" / "step_00000004").exists()
    assert f"goes on from step 4 of {first.name}, its last, to 8" in answer.err and "stretched" not in answer.err
    assert [row["step"] for row in watched.rows() if "loss" in row] == [5, 6, 7, 8]
    (said,) = watched.events("continued")
    assert (said["run"], said["step"], said["steps"], said["epochs"]) == (first.name, 4, 8, [1, 2])
    assert said["lr"][0] == said["lr"][1]
    assert sslrun.show(longer)["lost_steps"] == 0
    assert sslrun(*launch, "--json").json["joined"]


def test_killed_before_it_has_saved_and_after_it_ends_the_same(sslrun, signalled, watched, small, undisturbed):
    first, whole = undisturbed(1, overrides(small, "rotnet", 1)), undisturbed(1, overrides(small, "rotnet", 2))
    launch = (*overrides(small, "rotnet", 2), f"continue_from={first}", f"runs={watched.runs}")
    for after in (1, 3):
        assert signalled(*launch, number=signal.SIGKILL, after=after).code and watched.gone()
    sslrun("resume", watched.path)
    assert saved(watched.path, 8) == saved(whole, 8)


def test_schedules_are_stretched_and_that_is_said(sslrun, watched, small, undisturbed):
    """The learning rate is that of a cosine over all steps, at the step at which the first run ended."""
    cosine = tuple(word for word in overrides(small, "rotnet", 2) if word != "method.schedule=constant")
    first = undisturbed(1, tuple("method.epochs=1" if word == "method.epochs=2" else word for word in cosine))
    answer = sslrun(*cosine, f"continue_from={first}", f"runs={watched.runs}")
    assert "; schedules are stretched: the learning rate was " in answer.err
    rates = {row["step"]: row["lr"] for row in watched.rows() if "lr" in row}
    top = json.loads((watched.path / "spec.json").read_text())["method"]["lr"]
    assert rates[5] == pytest.approx(top / 2) and rates[5] > rates[6] > rates[7] > rates[8] > 0


def test_a_source_that_has_changed_is_refused(sslrun, one_line, watched, small, undisturbed, tmp_path):
    first = shutil.copytree(undisturbed(1, overrides(small, "rotnet", 1)), tmp_path / "first")
    launch = (*overrides(small, "rotnet", 2), f"continue_from={first}", f"runs={watched.runs}")
    file = first / "checkpoints" / "step_00000004" / "shared.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    line = one_line(sslrun(*launch, code=2), inside=True)
    assert "continue_from=" in line and "cannot be read (shared.safetensors is not what was written)" in line
