"""`continue_from`: what a run of two epochs is after two more is what a run of four is, byte for byte."""

import dataclasses
import json
import shutil
import signal
from pathlib import Path

import in_float64
import pytest

from launcher.compose.training import resolve
from launcher.run.files import read_json
from launcher.spec import stored
from launcher.spec.runspec import ContinueFrom

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
    return {name: entry["xxh3"] for name, entry in manifest["files"].items()}


def trained_longer(world, specs, folder):
    """{method: the hashes of the last checkpoint of two epochs, of one training and of one that goes on from the end of
    another}, of {method: (spec of one epoch, of two)}. The last one alone: it gives up the one before where that is
    still being written."""
    found = {}
    for method, (short, long) in specs.items():
        whole, first, second = (Path(folder, method, name) for name in ("whole", "first", "second"))
        in_float64.train(world, long, whole)
        in_float64.train(world, short, first)
        end = first / "run" / "checkpoints" / "step_00000004"
        begun = ContinueFrom(str(end), read_json(end / "manifest.json")["digest"], "first", 4, 1)
        in_float64.train(world, dataclasses.replace(stored.read(long), continue_from=begun).to_json(), second)
        found[method] = [saved(life / "run", 8) for life in (whole, second)]
        assert not (second / "run" / "checkpoints" / "step_00000004").exists()
    return found


def test_targets_of_groups_and_a_queue_go_on_on_several_ranks(ranks, small, tmp_path):
    specs = {
        name: [resolve(overrides(small, name, epochs))[0].to_json() for epochs in (1, 2)]
        for name in ("deepercluster", "swav")
    }
    for found in ranks(2, trained_longer, specs, str(tmp_path)):
        for whole, second in found.values():
            assert whole == second and len(whole) > 1


def test_it_is_the_run_that_would_have_been_longer_from_the_beginning(sslrun, watched, small, undisturbed):
    first, whole = undisturbed(1, overrides(small, "rotnet", 1)), undisturbed(1, overrides(small, "rotnet", 2))
    launch = (*overrides(small, "rotnet", 2), f"continue_from={first}", f"runs={watched.runs}")
    answer = sslrun(*launch, "--json")
    longer = watched.path
    assert saved(longer, 8) == saved(whole, 8)
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
