"""Whether a run starts again by itself: free causes always, others within a budget, and none that gets nowhere.

The lines of logs are those of a real Slurm (22.05): jobs of tests/slurm/cluster.py that were preempted, ran into
their time limit, lost a node, were requeued and cancelled.
"""

import pytest

from launcher.errors import SslrunError
from launcher.run.causes import CAUSES
from launcher.run.ledger import History
from launcher.start import requeue
from launcher.start.ending import Outcome

PREEMPTED = """\
slurmstepd-n1: error: *** STEP 3.0 ON n1 CANCELLED AT 2026-11-28T18:27:40 ***
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
slurmstepd-n1: error: *** JOB 3 ON n1 CANCELLED AT 2026-11-28T18:27:55 DUE TO PREEMPTION ***
srun: got SIGCONT
srun: forcing job termination
"""
TIME_LIMIT = """\
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
slurmstepd-n1: error: *** STEP 12.0 ON n1 CANCELLED AT 2026-11-28T18:27:11 DUE TO TIME LIMIT ***
slurmstepd-n1: error: *** JOB 12 ON n1 CANCELLED AT 2026-11-28T18:27:11 DUE TO TIME LIMIT ***
"""
NODE_FAILURE = """\
srun: error: Node failure on n2
srun: Job step aborted: Waiting up to 7 seconds for job step to finish.
slurmstepd-n1: error: *** JOB 11 ON n1 CANCELLED AT 2026-11-28T18:25:36 DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***
"""  # noqa: E501
REQUEUED = """\
slurmstepd-n1: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-28T18:23:17 DUE TO JOB REQUEUE ***
slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-28T18:23:17 DUE TO JOB REQUEUE ***
"""
CANCELLED = """\
srun: got SIGCONT
slurmstepd-n1: error: *** STEP 8.0 ON n1 CANCELLED AT 2026-11-28T18:23:26 ***
slurmstepd-n1: error: *** JOB 8 ON n1 CANCELLED AT 2026-11-28T18:23:26 ***
srun: forcing job termination
"""
# The ranks were told and ended within the grace: Slurm says nothing of the job.
STEP_ENDED = """\
slurmstepd-n1: error: *** STEP 9.0 ON n1 CANCELLED AT 2026-11-28T18:23:30 ***
srun: error: n1: task 0: Terminated
srun: Force Terminated StepId=9.0
"""
LOGS = {
    PREEMPTED: "preempted",
    TIME_LIMIT: "time_limit",
    NODE_FAILURE: "node_failure",
    NODE_FAILURE.splitlines()[0]: "node_failure",
    NODE_FAILURE.splitlines()[2]: "node_failure",
    REQUEUED: "requeued",
    CANCELLED: "cancelled",
    STEP_ENDED: "",
    "": "",
}


@pytest.mark.parametrize("log", LOGS)
def test_what_ended_a_job_is_read_from_its_log(log):
    assert requeue.ended_by_slurm(log) == LOGS[log]
    for down in (True, False):
        otherwise = "node_failure" if down else "killed"
        assert requeue.died_of(log, node_down=down) == (LOGS[log] or otherwise)


def test_a_node_that_was_lost_by_the_word_of_accounting():
    assert requeue.ended_by_slurm("srun: error: Job 7 ended: NODE_FAIL") == "node_failure"


# -- deciding --------------------------------------------------------------------------------------------------------


def starts(*told: str) -> History:
    """The ledger of a run that has just ended for the last time. Of each start "cause step": how it ended, and at which
    step it saved, where it did; the cause of the last is not in the ledger yet, and "-" is an end nobody wrote down."""
    events = []
    for generation, text in enumerate(told, start=1):
        cause, *steps = text.split()
        events.append({"event": "start", "generation": generation})
        events += [{"event": "checkpoint", "generation": generation, "step": int(step)} for step in steps]
        if generation < len(told) and cause != "-":
            events.append({"event": "end", "generation": generation, "cause": cause})
    return History(events)


def ended(cause: str) -> Outcome:
    return Outcome("failed", cause, "said", 4)


def decide(*told: str) -> tuple[Outcome, bool]:
    return requeue.decide(starts(*told), ended(told[-1].split()[0]))


@pytest.mark.parametrize("cause", ["preempted", "asked", "requeued"])
def test_what_is_free_starts_again_however_often_and_without_progress(cause):
    assert decide(*[cause] * 50) == (ended(cause), True)
    assert decide("killed", "killed", "killed", cause) == (ended(cause), True)


@pytest.mark.parametrize("cause", [*(name for name, cause in CAUSES.items() if cause.forgiven == 0), "unheard-of"])
def test_what_another_start_cannot_mend_is_the_end(cause):
    assert decide(cause) == (ended(cause), False)
    assert decide("preempted 10", f"{cause} 20") == (ended(cause), False)


def test_a_time_limit_starts_again_however_often_while_the_run_gets_on():
    assert decide(*(f"time_limit {step}" for step in range(1, 50))) == (ended("time_limit"), True)
    assert decide("time_limit", "time_limit") == (ended("time_limit"), True)


BUDGETS = {"node_failure": 20, "stuck": 3, "crash": 3, "killed": 3, "unfinished": 3, "not_started": 3}


@pytest.mark.parametrize("cause", BUDGETS)
def test_each_other_cause_has_a_budget_of_its_own(cause):
    budget = BUDGETS[cause]
    others = [f"{name} {step}" for step, name in enumerate(sorted({*BUDGETS} - {cause}), start=1)]
    forgiven = [*others, *(f"{cause} {step}" for step in range(100, 100 + budget))]
    assert decide(*forgiven) == (Outcome("preempted", cause, "said", 0), True)
    outcome, again = decide(*forgiven, f"{cause} 1000")
    message = f"said (end {budget + 1} of this kind: {cause}; {budget} are forgiven)"
    assert (outcome, again) == (Outcome("failed", cause, message, 4), False)


def test_every_error_has_a_cause_that_is_known():
    kinds = [SslrunError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.cause for kind in kinds} <= CAUSES.keys()


def test_the_exit_code_of_a_spent_budget_is_that_of_the_end():
    events = starts("crash 1", "crash 2", "crash 3", "crash 4")
    assert requeue.decide(events, Outcome("failed", "crash", "said", 7))[0].exit_code == 7


GONE_ON = {
    "two in a row": ["node_failure", "node_failure"],
    "the last got on": ["node_failure", "node_failure", "node_failure 1"],
    "one in between got on": ["node_failure", "node_failure 10", "node_failure", "node_failure"],
    "one in between was free": ["node_failure", "preempted", "node_failure", "node_failure"],
    "an end that nobody wrote down, and one more": ["-", "node_failure"],
}
STOOD_STILL = {
    "three in a row": (3, ["node_failure"] * 3),
    "of different kinds": (3, ["killed", "crash", "stuck"]),
    "four": (4, ["node_failure"] * 4),
    "since the last that got on": (3, ["node_failure", "node_failure 10"] + ["node_failure"] * 3),
    "since the last that was free": (3, ["node_failure", "preempted"] + ["node_failure"] * 3),
    "in a limit that is too short": (3, ["time_limit"] * 3),
    "in one that other ends cut": (3, ["time_limit", "node_failure", "time_limit"]),
    "that saved what had been saved": (3, ["node_failure 10", "node_failure 10", "node_failure 10", "node_failure 10"]),
    "that saved less": (3, ["preempted 10", "node_failure 5", "node_failure 9", "node_failure 4 8"]),
    "that nobody wrote down": (3, ["-", "-", "node_failure"]),
}


@pytest.mark.parametrize("how", GONE_ON)
def test_a_run_that_gets_on_starts_again(how):
    assert decide(*GONE_ON[how]) == (Outcome("preempted", "node_failure", "said", 0), True)


@pytest.mark.parametrize("how", STOOD_STILL)
def test_ends_in_a_row_without_a_newer_checkpoint_stop_it(how):
    number, told = STOOD_STILL[how]
    message = f"said ({number} starts in a row ended without a newer checkpoint)"
    assert decide(*told) == (Outcome("failed", "no_progress", message, 5), False)


@pytest.mark.parametrize(("work", "on"), [([4, 21], True), ([8, 1], True), ([4, 20], False), ([2, 99], False)])
def test_more_work_that_is_kept_between_two_steps_is_progress(work, on):
    kept = [{"event": "kept", "generation": number, "work": each} for number, each in ((1, [4, 20]), (4, work))]
    events = History([*starts(*["time_limit"] * 4), *kept])
    assert requeue.decide(events, ended("time_limit"))[1] is on


def test_an_end_whose_requeue_was_refused_is_one_end():
    ends = [{"event": "end", "generation": number, "cause": "crash"} for number in (1, 1, 2, 2)]
    history = History([*starts("- 1", "- 2", "crash 3"), *ends])
    assert requeue.decide(history, ended("crash")) == (Outcome("preempted", "crash", "said", 0), True)


def test_a_start_that_was_only_asked_for_is_none():
    """Code that somebody took in meanwhile is in the ledger as the next start's."""
    events = History([*starts("node_failure", "node_failure"), {"event": "code", "generation": 3}])
    assert requeue.decide(events, ended("node_failure"))[1]


def test_a_job_that_ends_before_the_run_began_is_decided_too():
    assert requeue.decide(History(), ended("killed")) == (Outcome("preempted", "killed", "said", 0), True)


# -- where, and when ---------------------------------------------------------------------------------------------------


def on_nodes(*told: str) -> History:
    """`starts`, of each start "node cause step": with the node that its end names; "-" where that is none."""
    events = list(starts(*(text.partition(" ")[2] for text in told)))
    for event in events:
        node = told[event["generation"] - 1].split()[0]
        if event["event"] == "end" and node != "-":
            event["node"] = node
    return History(events)


@pytest.mark.parametrize(
    ("told", "recurs"),
    [
        (["n2 killed", "n2 killed"], True),
        (["n2 killed", "n2 stuck"], True),
        (["n2 killed 10", "n2 killed"], True),
        (["n2 killed", "n2 killed 10"], False),  # it got on there
        (["n1 killed", "n2 killed"], False),
        (["n2 killed", "n1 killed", "n2 killed"], False),
        (["n2 killed", "n2 -", "n2 killed"], False),  # of the one between nobody wrote down where it ended
        (["n2 killed"], False),
        (["- killed", "- killed"], False),
        (["n2 preempted", "n2 killed"], False),  # no fault of the node
    ],
)
def test_two_ends_in_a_row_on_a_node_that_brought_nothing_recur(told, recurs):
    node, cause = told[-1].split()[:2]
    outcome = Outcome("failed", cause, "said", 4, node="" if node == "-" else node)
    assert requeue.recurs(on_nodes(*told), outcome) is recurs


def test_a_start_is_thought_to_take_as_long_as_the_last_that_went_on_from_a_checkpoint():
    def of(*times: tuple[float, float | None]) -> float:
        events = []
        for generation, (began, restored) in enumerate(times, start=1):
            events.append({"event": "start", "generation": generation, "time": began})
            if restored is not None:
                events.append({"event": "restored", "generation": generation, "time": restored})
        return requeue.start_seconds(History(events))

    assert of((100.0, 130.0)) == 30.0
    assert of((100.0, 130.0), (200.0, 290.0)) == 90.0
    assert of((100.0, 130.0), (200.0, None)) == 30.0  # it did not come so far
    assert of((100.0, 90.0)) == 0.0  # of two hosts, whose clocks differ
    assert of((100.0, None)) == of() == requeue.START_SECONDS
