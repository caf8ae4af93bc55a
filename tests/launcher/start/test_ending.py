"""How a start of a run ended: what its ranks said decides, and the one that failed first is the one to be heard."""

import pytest

from launcher.run import causes
from launcher.run.files import write_json
from launcher.run.ledger import History
from launcher.start import ending
from launcher.start.ending import Outcome
from launcher.start.handover import STOPPED_CODE

KILLED = -9


def error(rank: int, after: float, cause: str = "crash", exit_code: int = 4) -> dict:
    """`after` so many seconds since all ranks met. The later one is, the earlier its clock says that it was."""
    row = {"event": "error", "writer": f"rank{rank}", "time": -after, "cause": cause, "exit_code": exit_code}
    return {**row, "alive_s": after, "message": f"{cause} of rank {rank} at {after:g}"}


def judge(*events: dict, code: int = 4, first: int | None = None) -> Outcome:
    return ending.judge(History(events), code, first, "exit code 4; see the log")


def failed(cause: str, message: str, exit_code: int = 4, rank: int | None = None) -> Outcome:
    """`rank`: to blame for it."""
    return Outcome("failed", cause, message, exit_code, rank)


FINISHED = {"event": "finished", "writer": "rank0", "time": 9.0, "step": 18}


def test_every_rank_ended_well():
    assert judge(FINISHED, code=0) == Outcome("done", "done", "", 0)
    assert judge(error(0, 1.0), FINISHED, code=0, first=0).state == "done"  # an error that was survived


def test_ranks_that_ended_with_0_and_finished_nothing():
    outcome = judge(code=0)
    assert outcome == failed(
        "unfinished", "exit code 0, and no rank said that it had finished: exit code 4; see the log"
    )
    assert judge(error(1, 1.0), code=0) == failed("crash", "crash of rank 1 at 1", rank=1)
    assert judge({"event": "stopped_at_safe_point", "writer": "rank0", "time": 1.0}, code=0).state == "stopped"


def test_those_that_did_not_had_saved():
    assert STOPPED_CODE == 75
    stopped = Outcome("stopped", "stopped", "stopped at a safe point, state saved", 130)
    assert judge(code=75) == judge(error(0, 1.0), code=75) == stopped


@pytest.mark.parametrize("code", [1, 3, 74, 76, 137, KILLED])
def test_no_rank_said_anything(code):
    others = [{"event": "checkpoint", "writer": "rank0", "time": 1.0, "step": 3}]
    assert judge(*others, code=code, first=0) == failed("killed", "exit code 4; see the log", rank=0)


def test_the_first_to_fail_is_heard_whenever_it_spoke():
    """Its peers fail because of it, and may be quicker to say so."""
    events = error(0, 1.0), error(1, 3.0), error(1, 2.0), error(2, 0.5)
    assert judge(*events, first=1) == failed("crash", "crash of rank 1 at 2", rank=1)
    assert judge(*events, first=0) == failed("crash", "crash of rank 0 at 1", rank=0)
    assert judge(error(1, 1.0), error(11, 0.5), first=1).message == "crash of rank 1 at 1"


def test_the_first_to_fail_said_nothing():
    """It was killed: what its peers complain of came of that."""
    assert judge(error(0, 1.0), error(2, 2.0), first=1) == failed("killed", "exit code 4; see the log", rank=1)


def test_who_failed_first_is_not_known():
    assert judge(error(0, 3.0), error(1, 1.0), error(2, 2.0)) == failed("crash", "crash of rank 1 at 1", rank=1)
    before = {key: value for key, value in error(3, 9.0).items() if key != "alive_s"}  # as ranks of long ago say it
    assert judge(error(0, 3.0), before, error(2, 0.0)).message == "crash of rank 3 at 9"


def test_wrong_input_goes_before_all_else():
    events = error(0, 1.0), error(1, 1.5, "diverged"), error(2, 3.0, "input", 2), error(3, 2.0, "input", 2)
    for first in (0, 2, None):
        assert judge(*events, first=first) == failed("input", "input of rank 2 at 3", 2)


def test_a_loss_that_is_no_number_goes_before_what_came_of_it():
    events = error(0, 1.0), error(1, 2.0, "diverged"), error(2, 1.5, "diverged")
    for first in (0, 2, None):
        assert judge(*events, first=first) == failed("diverged", "diverged of rank 2 at 1.5", rank=2)


# -- ranks that got nowhere ------------------------------------------------------------------------------------------


@pytest.fixture
def stuck(fresh, ledgers):
    """`stuck(outcome, (points, stalled), ...)`: what becomes of `outcome` where its ranks left these heartbeats."""
    ledgers.start(fresh)
    (fresh.path / "heartbeats").mkdir()

    def judge(outcome: Outcome, *beats: tuple[int, bool], generation: int = 1) -> Outcome:
        for rank, (points, stalled) in enumerate(beats):
            beat = {"generation": generation, "rank": rank, "host": f"n{rank + 1}", "stage": "training", "step": points}
            beat |= {"points": points, "marks": 0, "stalled": stalled, "joined": True}
            times = {"still_s": 0.0, "every_s": 1.0, "alive_s": 1.0}
            write_json(fresh.path / "heartbeats" / f"rank{rank}.json", beat | times)
        return ending.stuck(fresh, outcome)

    return judge


@pytest.mark.parametrize("cause", ["crash", "killed"])
def test_the_rank_that_kept_the_others_waiting_is_named(stuck, cause):
    outcome = stuck(failed(cause, "said"), (7, True), (6, True))
    behind = "rank 1 on n2: behind the others, last in training at step 6"
    assert outcome == failed("stuck", f"stuck: {behind}; every rank's stacks are in its log", rank=1)


def test_a_rank_that_never_noticed_is_named(stuck):
    outcome = stuck(failed("killed", "said"), (7, False), (7, True))
    assert outcome.message.startswith("stuck: rank 0 on n1: no sign of life while the others waited")


def test_all_of_them_were_alike(stuck):
    outcome = stuck(failed("killed", "said"), (7, True), (7, True))
    assert outcome == failed("stuck", "stuck: no rank got on; every rank's stacks are in its log")


def test_ranks_that_got_on_were_not_stuck(stuck):
    outcome = failed("killed", "said")
    assert stuck(outcome, (7, False), (6, False)) is outcome
    assert stuck(outcome, (7, True), (6, True), generation=2) is outcome  # another start's


# -- ranks that had stood still --------------------------------------------------------------------------------------


@pytest.fixture
def paused(stuck, fresh, ledgers):
    """`paused(seconds, after)`: what becomes of a crash where a rank had stood still for so long, and was last heard of
    `after` seconds of its own later."""

    def judge(seconds: float, after: float, stalled: bool = False) -> Outcome:
        ledgers.say(fresh, "paused", rank=1, node="n2", seconds=seconds, alive_s=1.0 - after)
        return stuck(failed("crash", "said"), (7, stalled), (7, stalled))

    return judge


@pytest.mark.parametrize("stalled", [False, True])
def test_ranks_that_ended_soon_after_a_long_pause_ended_by_it(paused, stalled):
    assert paused(1900.0, 5.0, stalled) == failed("suspended", "suspended for 1900 s, which ended it: said")
    assert causes.of("suspended").forgiven is None


def test_a_short_pause_and_one_that_is_long_past_end_nobody(paused):
    assert paused(20.0, 5.0).cause == "crash"  # as machines have that are too busy
    assert paused(1900.0, 500.0).cause == "crash"
    assert paused(1900.0, 500.0, stalled=True).cause == "stuck"


def test_a_rank_that_complained_later_than_it_was_heard_of_is_believed(paused, fresh, ledgers):
    ledgers.say(fresh, "error", writer="rank1", message="said", exit_code=4, cause="crash", alive_s=500.0)
    assert paused(1900.0, 5.0).cause == "crash"


@pytest.mark.parametrize(
    "outcome",
    [failed("input", "said", 2), failed("diverged", "said"), Outcome("done", "done", "", 0)],
    ids=lambda outcome: outcome.cause,
)
def test_another_cause_stays(stuck, outcome):
    assert stuck(outcome, (7, True), (6, True)) is outcome
