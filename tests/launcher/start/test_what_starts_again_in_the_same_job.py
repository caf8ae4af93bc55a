"""What the job's own nodes can mend starts again there at once; what only Slurm can mend goes back into the queue."""

import signal

import pytest
from recorded import Refused

from launcher.errors import NodesRefused, NotStarted
from launcher.run.causes import CAUSES
from launcher.run.ledger import Ledger
from launcher.slurm import badnodes
from launcher.slurm.meeting import Meeting
from launcher.start import batch, network, preflight, ranks
from launcher.start.ending import Outcome
from launcher.start.ranks import Ended

IN_PLACE = {"suspended", "node_failure", "unreadable", "stuck", "not_started", "crash", "killed", "unfinished"}
THROUGH_THE_QUEUE = {"preempted", "asked", "requeued", "time_limit", "setup"}
DONE = Outcome("done", "done", "", 0)


def failed(cause: str = "killed", rank: int | None = None) -> Outcome:
    return Outcome("failed", cause, "said", 4, rank)


@pytest.fixture
def starts(monkeypatch):
    """`starts(failed(), ...)`: how the ranks of one start after the other end; a callable does something besides."""

    def script(*outcomes) -> None:
        left = iter([*outcomes, *[DONE] * 9])

        def work(run, spec, taken, ledger, here) -> Outcome:
            outcome = next(left)
            return outcome(run, ledger, here) if callable(outcome) else outcome

        monkeypatch.setattr(batch, "_work", work)

    return script


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_mended_in_its_place(cause, runs, job, ends_of, starts):
    starts(failed(cause))
    ends = ends_of(runs.make())
    follows = "in_place" if cause in IN_PLACE else "requeued" if cause in THROUGH_THE_QUEUE else ""
    assert ends[0][1:] == (cause, follows)
    assert len(ends) == 1 + (follows == "in_place")  # the next start of this job is done
    assert len(job.slurm.commands("scontrol requeue")) == (follows == "requeued")


def told(run, ledger, here) -> Outcome:
    signal.raise_signal(signal.SIGTERM)
    return failed()


def lost_a_node(run, ledger, here) -> Outcome:
    here.nodes.left_out["n2"] = "is lost"
    return failed("node_failure")


# what is the case -> (what Slurm says, how the start ends, why it goes through the queue)
ONLY_SLURM = {
    "others want the nodes": ({"preempted": "2026-11-30T02:00:41"}, failed("stuck"), "was told to end by SIGTERM"),
    "the job was told to end": ({}, told, "was told to end by SIGTERM"),
    "the warning of the limit is over": ({"used": "00:59:01"}, failed(), "was told to end by SIGUSR2"),
    "a start and a save do not fit": ({"used": "00:57:01"}, failed(), "179 s are left of the job, and a start takes"),
    "too few nodes": ({}, lost_a_node, "too few of its nodes are left"),
    "Slurm keeps too few": ({"nodes": "n1"}, failed("node_failure"), "too few of its nodes are left"),
    "Slurm has lost the first": ({"nodes": "n[2-3]"}, failed("node_failure"), "its first node is lost"),
}


@pytest.mark.parametrize("case", ONLY_SLURM)
def test_only_slurm_can_mend_it_where(case, runs, job, ends_of, starts, monkeypatch):
    says, outcome, why = ONLY_SLURM[case]
    run = runs.make(nodes=2)
    job.began_on("n[1-2]")

    def meanwhile(run, ledger, here) -> Outcome:
        job.is_now(**{"nodes": "n[1-2]", **says})
        return outcome(run, ledger, here) if callable(outcome) else outcome

    starts(meanwhile)
    assert [follows for *_, follows in ends_of(run)] == ["requeued"]
    end = run.history().last("end")
    assert why in end["why"] and job.slurm.commands("scontrol requeue") == [["scontrol", "requeue", "7"]]


AWAY = Refused("slurm_load_jobs error: Unable to contact slurm controller\n")


def test_a_controller_that_is_away_for_a_moment_is_waited_for(runs, job, ends_of, starts):
    def meanwhile(run, ledger, here) -> Outcome:
        job.slurm.says("scontrol show job", AWAY, AWAY, AWAY, job.said)
        return failed()

    starts(meanwhile)
    assert ends_of(runs.make())[0] == ("preempted", "killed", "in_place")


def test_where_slurm_does_not_answer_nobody_knows_what_the_job_has_left(runs, job, ends_of, starts, monkeypatch):
    monkeypatch.setattr(batch, "CONTROLLER_SECONDS", 0.1)
    job.slurm.says("scontrol show job", AWAY)
    starts(failed())
    run = runs.make()
    assert ends_of(run) == [("preempted", "killed", "requeued")]
    assert run.history().last("end")["why"] == "Slurm does not answer"


def test_a_job_that_ends_starts_nothing_more(runs, job, ends_of, starts):
    run = runs.make()

    def meanwhile(run, ledger, here) -> Outcome:
        job.is_now(state="COMPLETING")
        return failed()

    starts(meanwhile)
    assert ends_of(run) == [("preempted", "killed", "requeued")]
    assert run.history().last("end")["why"] == "the job is COMPLETING"


@pytest.mark.parametrize("state", ["PENDING", "COMPLETING"])
def test_one_that_slurm_ends_for_another_of_the_job_goes_through_the_queue(runs, job, ends_of, starts, state):
    """It is counted as one more from then on, and this process may live for KillWait."""
    starts(lambda run, ledger, here: job.is_now(state=state, restarts=1) or failed())
    assert ends_of(runs.make()) == [("preempted", "killed", "requeued")]


def test_what_slurm_has_started_again_is_no_business_of_the_start_that_stood_still(runs, job, ends_of, starts):
    run = runs.make()

    def meanwhile(run, ledger, here) -> Outcome:
        job.is_now(state="RUNNING", restarts=1)
        return failed()

    starts(meanwhile)
    assert ends_of(run) == [("failed", "superseded", "")]
    assert len(run.history().all("start")) == 1 and not job.slurm.commands("scontrol requeue")


def test_the_start_that_slurm_has_made_is_its_own(runs, job, ends_of, starts, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    job.is_now(restarts=1)
    starts(failed())
    assert ends_of(runs.make())[0] == ("preempted", "killed", "in_place")


def test_a_start_takes_as_long_as_the_last_one_did(runs, job, ends_of, starts):
    """All but a start of the latest's length, the warning and Slurm's earliness is over, or not quite."""
    run = runs.make()

    def slow(seconds: float):
        def start(run, ledger, here) -> Outcome:
            began = run.history().last("start")["time"]
            Ledger(run.path, ledger.generation, "rank0").write("restored", step=0, time=began + seconds)
            job.is_now(used="00:56:00")  # 240 s are left, of which 120 s are the warning's
            return failed()

        return start

    starts(slow(100), slow(140))
    assert [follows for *_, follows in ends_of(run)] == ["in_place", "requeued"]


def test_what_somebody_cancelled_goes_nowhere(runs, job, ends_of, starts):
    def cancels(run, ledger, here) -> Outcome:
        Ledger(run.path, ledger.generation, "cancel").write("cancel", job="7")
        return failed()

    starts(cancels)
    assert ends_of(runs.make()) == [("cancelled", "cancelled", "")]
    assert not job.slurm.commands("scontrol requeue")


def test_the_next_start_begins_for_what_ended_the_one_before(runs, job, ends_of, starts):
    starts(failed("crash"), failed("stuck"))
    run = runs.make()
    ends_of(run)
    said = [(e["generation"], e["cause"], e["job"]) for e in run.history().all("start")]
    assert said == [(1, "submitted", "7"), (2, "crash", "7"), (3, "stuck", "7")]


def test_the_budgets_are_those_of_starts_through_the_queue(runs, job, ends_of, starts):
    starts(*[saves] * 4)
    again = ("preempted", "killed", "in_place")
    assert ends_of(runs.make()) == [again] * 3 + [("failed", "killed", "")]


# -- nodes that let it down --------------------------------------------------------------------------------------------


def saves(run, ledger, here) -> Outcome:
    """Rank 1 is killed, after a newer checkpoint."""
    Ledger(run.path, ledger.generation, "rank0").write("checkpoint", step=ledger.generation, path="step")
    return failed(rank=1)


@pytest.fixture
def where(monkeypatch):
    """`where("n2", ...)`: the node of rank 1, start by start."""

    def script(*nodes: str) -> None:
        monkeypatch.setattr(batch.heartbeats, "processes", lambda _, generation: {1: (nodes[generation - 1], 4711)})

    return script


def left_out(run) -> list[tuple[int, str, str]]:
    return [(e["generation"], e["node"], e["why"]) for e in run.history().all("left_out")]


@pytest.mark.parametrize(("cause", "marked"), [("killed", ["n2"]), ("stuck", ["n2"]), ("crash", [])])
def test_a_node_on_which_two_starts_in_a_row_ended_is_left_out(runs, job, ends_of, starts, where, cause, marked):
    """Of a crash the code may be the reason: no other run need avoid the node."""
    run = runs.make(nodes=2, spare_nodes=1, partition="mixed")
    job.began_on("n[1-3]")
    starts(*[failed(cause, rank=1)] * 2)
    where("n2", "n2")
    assert [follows for *_, follows in ends_of(run)] == ["in_place", "in_place", ""]
    assert left_out(run) == [(2, "n2", f"{cause} there twice in a row")]
    assert [e["nodes"] for e in run.history().all("start")] == ["n1,n2", "n1,n2", "n1,n3"]
    assert [e.get("node") for e in run.history().all("end")] == ["n2", "n2", None]
    assert list(badnodes.listed(runs.folder)) == marked


@pytest.mark.parametrize(("nodes", "how"), [(("n2", "n1"), failed(rank=1)), (("n2", "n2"), saves)])
def test_nodes_that_differ_or_a_newer_checkpoint_between_speak_for_them(runs, job, ends_of, starts, where, nodes, how):
    run = runs.make(nodes=2)
    job.began_on("n[1-2]")
    starts(how, how)
    where(*nodes)
    assert [follows for *_, follows in ends_of(run)] == ["in_place", "in_place", ""]
    assert not left_out(run)


def test_without_a_spare_slurm_is_asked_for_another_node(runs, job, ends_of, starts, where):
    run = runs.make(nodes=2, partition="mixed")
    job.began_on("n[1-2]")
    starts(*[failed(rank=1)] * 2)
    where("n2", "n2")
    assert [follows for *_, follows in ends_of(run)] == ["in_place", "requeued"]
    assert run.history().last("end")["why"] == "too few of its nodes are left"
    assert job.slurm.commands("scontrol update")[-1] == ["scontrol", "update", "JobId=7", "ExcNodeList=n2"]


def test_where_it_cannot_be_told_which_nodes_to_avoid_it_goes_back_all_the_same(runs, job, ends_of, starts, where):
    """Avoiding none: nobody knows whether enough others would be left for it."""
    run = runs.make(nodes=2, partition="mixed")
    job.began_on("n[1-2]")
    starts(*[failed(rank=1)] * 2)
    where("n2", "n2")
    job.slurm.says("sinfo", AWAY)
    job.slurm.says("sinfo --noheader --Node --format=", AWAY)
    assert [follows for *_, follows in ends_of(run)] == ["in_place", "requeued"]
    assert job.slurm.commands("scontrol requeue") == [["scontrol", "requeue", "7"]]
    assert not job.slurm.commands("scontrol update")


# -- nodes that are refused, or lost -----------------------------------------------------------------------------------


@pytest.fixture
def with_ranks(monkeypatch):
    """`with_ranks(looks, ends)`: what `preflight.look` and `ranks.start` answer, one start after the other."""
    monkeypatch.setattr(batch.Understudy, "stand_by", lambda *_: None)

    def script(looks: list, ends: list) -> list[tuple[list[str], str, bool]]:
        """[(the nodes, rank 0's address, whether beside a step that has not ended)] of each start of ranks."""
        begun = []

        def look(run, spec, nodes, code, *, beside, **_) -> dict[str, str]:
            if error := looks.pop(0) if looks else None:
                raise error
            return {node: f"{node}.cluster" for node in nodes}

        def start(run, spec, code, nodes, meeting, generation, told, standby, *, beside) -> Ended:
            begun.append((list(nodes), meeting.address, beside))
            if ends:
                return ends.pop(0)
            Ledger(run.path, generation, "rank0").write("finished", step=1, seconds={})
            return Ended(0, None, "", {}, over=True)

        monkeypatch.setattr(preflight, "look", look)
        monkeypatch.setattr(network, "find", lambda run, spec, nodes, host, **_: Meeting(host, 10001, {}))
        monkeypatch.setattr(ranks, "start", start)
        return begun

    return script


def test_a_node_that_is_refused_is_left_out_and_the_spare_taken(runs, job, ends_of, with_ranks):
    begun = with_ranks([NodesRefused({"n1": "has no python"})], [])
    run = runs.make(nodes=2, spare_nodes=1)
    job.began_on("n[1-3]")
    assert ends_of(run) == [("preempted", "not_started", "in_place"), ("done", "done", "")]
    assert left_out(run) == [(1, "n1", "has no python")] and list(badnodes.listed(runs.folder)) == ["n1"]
    assert begun == [(["n2", "n3"], "n2.cluster", True)]  # rank 0 is not where the batch script is


def test_a_node_that_is_lost_is_left_out_and_the_end_is_a_nodes_failure(runs, job, ends_of, with_ranks):
    begun = with_ranks([], [Ended(1, 1, "rank 1 on n2: Killed", {"n2": "is lost"}, over=True)])
    run = runs.make(nodes=2, spare_nodes=1)
    job.began_on("n[1-3]")
    assert ends_of(run)[0] == ("preempted", "node_failure", "in_place")
    assert run.history().of(1).last("end")["message"] == "n2 is lost"
    assert [nodes for nodes, *_ in begun] == [["n1", "n2"], ["n1", "n3"]]


def test_ranks_that_do_not_go_cost_their_node_and_are_worked_beside(runs, job, ends_of, with_ranks):
    begun = with_ranks([], [Ended(-9, 0, "rank 0 on n1: Killed", {"n2": preflight.STILL_HELD}, over=False)])
    run = runs.make(nodes=2, spare_nodes=1)
    job.began_on("n[1-3]")
    assert ends_of(run)[0] == ("preempted", "killed", "in_place")
    assert left_out(run) == [(1, "n2", preflight.STILL_HELD)]
    assert [(nodes, beside) for nodes, _, beside in begun] == [(["n1", "n2"], False), (["n1", "n3"], True)]


def test_a_run_of_a_range_goes_on_on_the_nodes_that_are_left(runs, job, ends_of, with_ranks):
    begun = with_ranks([], [Ended(1, 1, "", {"n3": "is lost"}, over=True)])
    run = runs.make(nodes=4, least=2)
    job.began_on("n[1-4]")
    assert ends_of(run)[0] == ("preempted", "node_failure", "in_place")
    assert [nodes for nodes, *_ in begun] == [["n1", "n2", "n3", "n4"], ["n1", "n2"]]
    assert [e["world_size"] for e in run.history().all("start")] == [4, 2]
    assert job.slurm.commands("scontrol update") == [["scontrol", "update", "JobId=7", "NodeList=n1,n2"]]


def test_what_a_job_was_granted_beyond_need_is_given_back_once(runs, job, ends_of, with_ranks):
    with_ranks([], [Ended(1, 1, "", {}, over=True)])
    job.began_on("n[1-7]")
    ends_of(runs.make(nodes=4, least=2, spare_nodes=1))
    given_back = job.slurm.commands("scontrol update")
    assert given_back == [["scontrol", "update", "JobId=7", "NodeList=n1,n2,n3,n4,n5"]]


def test_nodes_that_could_not_be_given_back_are_tried_again_at_the_next_start(runs, job, ends_of, with_ranks):
    with_ranks([], [Ended(1, 1, "", {}, over=True)])
    job.began_on("n[1-3]")
    job.slurm.says("scontrol update", Refused("Job update not available right now\n"), "")
    ends_of(runs.make(nodes=2))
    assert len(job.slurm.commands("scontrol update")) == 2


def test_a_look_that_failed_may_have_left_a_step_and_what_follows_is_beside_it(runs, job, ends_of, with_ranks):
    begun = with_ranks([NotStarted("a node does not start a task")], [])
    assert ends_of(runs.make())[0] == ("preempted", "not_started", "in_place")
    assert [beside for *_, beside in begun] == [True]


@pytest.mark.parametrize("lost", ["n1", "n2"])
def test_a_node_that_falls_silent_is_left_to_the_spare(runs, job, ends_of, with_ranks, lost):
    """The first one, too: its batch script lives, and no rank need be there."""
    begun = with_ranks([], [Ended(-9, 0, "", {lost: preflight.SILENT}, over=False)])
    run = runs.make(nodes=2, spare_nodes=1)
    job.began_on("n[1-3]")
    assert ends_of(run) == [("preempted", "node_failure", "in_place"), ("done", "done", "")]
    assert left_out(run) == [(1, lost, preflight.SILENT)]
    others = [node for node in ("n1", "n2", "n3") if node != lost]
    assert [(nodes, beside) for nodes, _, beside in begun] == [(["n1", "n2"], False), (others, True)]
