"""Where the ranks of a start meet, and what it means for the start where they do not."""

from types import SimpleNamespace

import pytest
import recorded

from launcher.errors import ClusterError, InputError, NodesRefused, NotStarted
from launcher.run.ledger import History
from launcher.slurm import meeting
from launcher.slurm.meeting import Apart, Meeting
from launcher.start import network

NODES = ["n1", "n2", "n3"]


@pytest.fixture
def found(runs, job, monkeypatch):
    """`found(answer, nodes, NAME=value)`: where a run of so many nodes meets whose test of them has this answer, whose
    job has `spare` nodes and whose ledger these events; what was asked of that is `asked`."""

    def find(answer: Meeting | Apart, nodes=NODES, **environment: str) -> Meeting:
        def meet(command, nodes, names, **more) -> Meeting:
            find.asked.append((command, names, more))
            if isinstance(answer, Apart):
                raise answer
            return answer

        find.asked = []
        monkeypatch.setattr(meeting, "meet", meet)
        spec = runs.spec(nodes=len(nodes), environment=environment)
        run = SimpleNamespace(history=lambda: History(find.events))
        return network.find(run, spec, nodes, "n1.cluster", spare=find.spare, beside=False, unwanted=lambda: False)

    find.spare, find.events = 0, ()
    job.slurm.says("scontrol show node", "NodeName=n1 Arch=x86_64 NodeAddr=10.1.0.1 NodeHostName=n1\n")
    return find


THERE = Meeting("10.1.0.1", 10001, dict.fromkeys(NODES, "eth0"))


def test_the_hosts_name_is_tried_and_the_address_that_slurm_has(found, job):
    assert found(THERE, NCCL_DEBUG="INFO") == THERE
    ((command, names, more),) = found.asked
    assert names == ["n1.cluster", "10.1.0.1"] and command[0] == "srun"
    assert more["environment"]["NCCL_DEBUG"] == "INFO" and not more["over"]()
    job.slurm.says("scontrol show node", recorded.Refused("Node n1 not found\n"))
    found(THERE)
    assert found.asked[0][1] == ["n1.cluster"]


def test_what_a_line_of_the_setup_exports_is_the_users_too(found, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "10.9.0.1")
    found(THERE, GLOO_SOCKET_IFNAME="ib0")
    given = found.asked[0][2]["given"]
    assert (given["MASTER_ADDR"], given["GLOO_SOCKET_IFNAME"]) == ("10.9.0.1", "ib0")


@pytest.mark.parametrize(
    ("environment", "port"), [({}, None), ({"MASTER_PORT": "29500", "MASTER_ADDR": "nowhere"}, 29500)]
)
def test_ranks_of_one_node_meet_where_no_other_can_come_and_nothing_is_tried(found, environment, port):
    here = found(THERE, ["n2"], **environment)
    assert (here.address, here.interfaces) == ("127.0.0.1", {}) and port in (None, here.port)
    assert not found.asked


FEW = Apart(why={"n3": "does not reach n1 at 10.1.0.1: no answer"}, setting="MASTER_ADDR")
MOST = Apart("n2, n3 do not reach n1 at 10.1.0.1 (no answer)", setting="MASTER_ADDR")


def test_the_few_that_do_not_get_there_are_refused(found):
    with pytest.raises(NodesRefused, match=r"^n3 does not reach n1 at 10\.1\.0\.1: no answer$") as error:
        found(FEW)
    assert error.value.why == FEW.why


def got_on(nodes: str) -> list[dict]:
    """What the ledger says of a start on these whose ranks met."""
    return [{"event": event, "generation": 1, "nodes": nodes} for event in ("start", "environment")]


@pytest.mark.parametrize(("spare", "events"), [(1, []), (0, got_on("n[1-3]"))])
def test_where_the_run_can_do_without_them_or_they_have_met_before_they_are_told_what_is_set(found, spare, events):
    found.spare, found.events = spare, events
    with pytest.raises(NodesRefused) as error:
        found(FEW, MASTER_ADDR="10.1.0.1")
    assert error.value.why == {"n3": f"{FEW.why['n3']} (cluster.environment.MASTER_ADDR=10.1.0.1)"}


@pytest.mark.parametrize("events", [[], got_on("n1")])
def test_what_is_set_and_leaves_too_few_of_them_is_wrong_input(found, events):
    found.events = events
    lacks = Apart(why={"n2": "has no address at eth0"}, setting="GLOO_SOCKET_IFNAME")
    said = (
        r"^cluster\.environment\.GLOO_SOCKET_IFNAME=eth0: n2 has no address at eth0; set it to the network .* leave it"
    )
    with pytest.raises(InputError, match=said):
        found(lacks, GLOO_SOCKET_IFNAME="eth0")


@pytest.mark.parametrize("state", ["COMPLETING", "PENDING"])
def test_while_slurm_ends_the_job_none_is(found, job, state):
    job.is_now("n[1-3]", state=state)
    with pytest.raises(NotStarted, match=r"^n3 does not reach") as error:
        found(FEW)
    assert not isinstance(error.value, NodesRefused)


def test_most_of_them_are_the_clusters_or_what_the_user_has_set(found):
    with pytest.raises(
        ClusterError, match=r"\(no answer\); set cluster.environment.MASTER_ADDR to an address of"
    ) as error:
        found(MOST)
    assert error.value.cause == "cluster"
    said = r"^cluster\.environment\.MASTER_ADDR=nowhere: n2, n3 do not .*; set it to an address .*, or leave it out$"
    with pytest.raises(InputError, match=said):
        found(MOST, MASTER_ADDR="nowhere")


@pytest.mark.parametrize("environment", [{}, {"MASTER_ADDR": "10.1.0.1"}])
def test_where_they_met_before_they_may_again(found, environment):
    """A switch may be away for a while."""
    found.events = got_on("n[1-3]")
    with pytest.raises(NotStarted, match=r"^n2, n3 do not reach .*; set cluster.environment.MASTER_ADDR to") as error:
        found(MOST, **environment)
    assert error.value.cause == "not_started" and not isinstance(error.value, NodesRefused)
    with pytest.raises(InputError, match=r"^cluster\.environment\.MASTER_PORT=http: it is no port"):
        found(Apart("it is no port", setting="MASTER_PORT"), MASTER_PORT="http")


@pytest.mark.parametrize(
    "error",
    [
        Apart("its nodes could not try", begun=False),
        Apart("the job is to end"),
        Apart("n1 cannot listen: address already in use", setting="MASTER_PORT", begun=False),
    ],
)
def test_what_was_not_tried_may_be_at_the_next_start(found, error):
    with pytest.raises(NotStarted) as refused:
        found(error)
    assert refused.value.cause == "not_started" and not isinstance(refused.value, NodesRefused)


def test_where_no_node_begins_none_is_refused(found):
    with pytest.raises(NotStarted) as refused:
        found(Apart("n1 does not run its Python; n2 does not run its Python", begun=False))
    assert not isinstance(refused.value, NodesRefused)
