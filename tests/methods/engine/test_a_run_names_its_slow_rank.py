"""Of four ranks that train one is slow: the run says which one, while it trains. Where all are, it names none."""

import json
import socket
from pathlib import Path

import pytest

from launcher.run.slow_ranks import IN_A_ROW, WINDOW
from launcher.runtime.pace import WARM_UP

pytestmark = pytest.mark.slow  # some hundred steps of four ranks

LATE = Path(__file__).parents[2] / "support" / "slow_rank"
SECONDS = 0.06  # a step; those of the run take some hundredths
JUDGED = WARM_UP + IN_A_ROW * WINDOW + 2  # steps


@pytest.fixture
def training(sslrun, watched):
    """`training(RANK="2")`: a run in which those ranks are slow."""

    def start(**where):
        order = {"where": where, "seconds": SECONDS}
        command = sslrun.where(PYTHONPATH=str(LATE), SSLRUN_TEST_SLOW=json.dumps(order))
        size = "method.global_batch=16", "data.images=1600", "method.epochs=20"  # 100 steps an epoch
        return command.start("method=rotnet", "recipe=tiny", *size, "tasks_per_node=4", f"runs={watched.runs}")

    return start


def test_one_slow_rank_of_four_is_named_in_the_ledger_and_by_status(sslrun, watched, training, until):
    launcher = training(RANK="2")
    (event,) = until(lambda: launcher.poll() is not None or watched.events("slow_rank"))
    assert (event["rank"], event["node"]) == (2, socket.gethostname()) and event["ratio"] > 2
    (row,) = sslrun("status", f"runs={watched.runs}", "--json").json
    assert row["state"] == "running" and [each["rank"] for each in row["slow_ranks"]] == [2]
    assert f"rank 2 on {event['node']} takes" in sslrun("status", f"runs={watched.runs}").out
    sslrun("cancel", watched.path, "--yes")
    assert sslrun.finish(launcher, timeout=120).code != 0
    assert [e["rank"] for e in watched.events("slow_rank")] == [2] and not watched.events("slow_rank_over")


def test_where_all_ranks_are_equally_slow_none_is_named(sslrun, watched, training):
    launcher = training()
    watched.reach(JUDGED, launcher)
    sslrun("cancel", watched.path, "--yes")
    sslrun.finish(launcher, timeout=120)
    assert not watched.events("slow_rank")
