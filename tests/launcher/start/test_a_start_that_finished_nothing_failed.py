"""Exit code 0 is not enough: a start is done once its ranks said so, whatever it worked on and whoever ended it."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

# A library that a rank calls, and which ends the process.
LIBRARY = """
import os, sys
if "launcher.start.worker" in sys.orig_argv:
    from launcher.run.folder import RunDir
    RunDir.spec = lambda run: {call}
"""


@pytest.fixture
def with_library(sslrun, tmp_path):
    """The command line where what a rank calls does this."""

    def planted(call: str):
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(LIBRARY.format(call=call))
        return sslrun.where(PYTHONPATH=str(tmp_path / "site"))

    return planted


@pytest.fixture
def works(undisturbed, journey, tmp_path) -> dict[str, tuple]:
    """What to ask for, by kind of work, and the folder in which its run then lies."""
    finished = Path(shutil.copytree(undisturbed(1, journey), tmp_path / "runs" / "finished", symlinks=True))
    shutil.copytree(undisturbed(1, journey).parent / ".code", tmp_path / "runs" / ".code")
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "0.npy", np.zeros((8, 2), np.float32))
    runs = f"runs={tmp_path / 'runs'}"
    return {
        "training": (("method=rotnet", "recipe=tiny", runs), tmp_path / "runs"),
        "evaluation": (("eval", finished, "protocol=knn"), finished / "evals"),
        "k-means": (("kmeans", f"features={tmp_path / 'features'}", "k=2", runs), tmp_path / "runs"),
    }


def test_no_kind_of_work_is_done_because_its_process_ended_with_0(with_library, works, tmp_path):
    sslrun = with_library("os._exit(0)")
    for work, (words, folder) in works.items():
        before = {path for path in folder.glob("*") if path.is_dir()}
        said = sslrun(*words, code=4).complaint
        (made,) = {path for path in folder.glob("*") if path.is_dir()} - before
        shown = sslrun.show(made)
        assert (shown["state"], shown["cause"]) == ("failed", "unfinished"), work
        assert "exit code 0, and no rank said that it had finished" in said, work
        assert str(made / "logs" / "rank0.log") in said, work


def test_who_ended_it_is_in_the_log_where_python_can_tell(with_library, works):
    sslrun = with_library("sys.exit(0)")
    words, folder = works["training"]
    before = set(folder.glob("*"))
    said = sslrun(*words, "tasks_per_node=2", code=4).complaint
    (rank,) = re.findall(r"rank (\d) on .*SystemExit: 0", said)  # whichever was the first
    (made,) = set(folder.glob("*")) - before
    assert "sitecustomize.py" in (made / "logs" / f"rank{rank}.log").read_text()
    assert json.loads((made / "events" / f"0001-rank{rank}.jsonl").read_text().splitlines()[-1])["cause"] == "crash"


def test_srun_that_started_no_rank_at_all_finished_nothing(runs, job, ends_of):
    job.srun("echo 'srun: error: no step' >&2", look="echo n1 is n1")
    run = runs.make()
    assert ends_of(run)[0] == ("preempted", "unfinished", "in_place")
    end = run.history().of(1).last("end")
    assert "no rank said that it had finished: srun: error: no step" in end["message"]
