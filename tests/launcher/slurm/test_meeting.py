"""How the nodes of a job find out where they reach the first one; a program says what a task on each of them would."""

import json
import sys

import pytest

from launcher.slurm import meeting
from launcher.slurm.meeting import Apart

# {node: {"has": what it says first, ADDRESS: the number and its own address, or why it does not get there}}; of an
# address at one node's port alone ADDRESS:NODE. What is not there stays without an answer.
SRUN = """
import json, sys
nodes = json.loads(sys.argv[1])
print("Welcome to n1\\n\\nn9 listens 1", flush=True)
for number, (node, knows) in enumerate(nodes.items()):
    for line in knows["has"].split("|"):
        print(line.format(node=node, port=5000 + number), flush=True)
for line in sys.stdin:
    who, question, port, address = line.rstrip("\\n").split(" ", 3)
    print("asked", who, address, file=sys.stderr)
    for node, knows in nodes.items():
        said = knows.get(f"{address}:n{int(port) - 4999}", knows.get(address))
        if who in ("*", node) and said:
            verb = "reaches" if isinstance(said, list) else "misses"
            print(node, verb, question, *(said if isinstance(said, list) else [said]), flush=True)
"""
LISTENS = "{node} has lo=127.0.0.1|{node} has eth0=10.0.0.%s|{node} has docker0=172.17.0.1|{node} listens {port}"
SILENT = ""


def machine(number: int, **more) -> dict:
    """What node `number` knows: every node at 10.0.0.N, by eth0."""
    known = {f"10.0.0.{other}": [f"10.0.0.{other}", f"10.0.0.{number}"] for other in range(1, 6)}
    own = f"n{number}"
    known |= {f"127.0.0.1:{own}": ["127.0.0.1", "127.0.0.1"], "127.0.0.1": "connection refused"}
    known |= {"172.17.0.1": "another machine answers", "nowhere": "its name cannot be resolved there"}
    return {"has": LISTENS % number, **known, f"172.17.0.1:{own}": ["172.17.0.1", "172.17.0.1"], **more}


def machines(count: int, **more) -> dict[str, dict]:
    return {f"n{number}": machine(number, **more) for number in range(1, count + 1)}


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Who is silent here is so for a reason: a slow machine is waited for."""
    for name in ("HURRY", "WAVE", "TRY", "END"):
        monkeypatch.setattr(meeting, f"{name}_SECONDS", 600.0)
    monkeypatch.setattr(meeting, "TICK_SECONDS", 0.1)


@pytest.fixture
def met(capfd):
    """`met(nodes, name, ...)`: (where they meet, what was asked of whom); a test need not say what is given."""

    def meet(nodes: dict[str, dict], *names: str, given=(), patience=600.0, together=600.0, over=lambda: False):
        command = [sys.executable, "-c", SRUN, json.dumps(nodes)]
        about = {"given": dict(given), "environment": {}, "patience": patience, "together": together, "over": over}
        found = meeting.meet(command, list(nodes), names, **about)
        said = capfd.readouterr().out.splitlines()
        return found, [tuple(line.split()[1:]) for line in said if line.startswith("asked ")]

    return meet


def eth0(count: int) -> dict[str, str]:
    return {f"n{number}": "eth0" for number in range(1, count + 1)}


def test_the_likeliest_address_is_asked_for_once_a_node_and_each_node_is_reached_by_the_next(met):
    nodes = machines(3)
    for number, node in enumerate(nodes.values(), 1):
        node["n1.cluster"] = ["10.0.0.1", f"10.0.0.{number}"]
    found, asked = met(nodes, "n1.cluster", "10.0.0.1")
    assert (found.address, found.port, found.interfaces) == ("10.0.0.1", 5000, eth0(3))
    assert asked == [("*", "n1.cluster"), ("n2", "10.0.0.1"), ("n3", "10.0.0.2"), ("n1", "10.0.0.3")]


def test_a_name_that_means_its_own_loopback_to_the_first_is_the_others_number(met):
    nodes = machines(2)
    nodes["n1"] |= {"n1.cluster": ["127.0.1.1", "127.0.0.1"]}
    nodes["n2"] |= {"n1.cluster": ["10.0.0.1", "10.0.0.2"], "127.0.1.1": "connection refused"}
    assert met(nodes, "n1.cluster")[0] == meeting.Meeting("10.0.0.1", 5000, eth0(2))


def test_of_a_name_that_is_another_number_to_each_the_name_is_kept(met):
    nodes = machines(2)
    for node, number in (("n1", "192.0.2.1"), ("n2", "192.0.2.2")):
        apart = dict.fromkeys(("192.0.2.1", "192.0.2.2"), "no route to host")
        nodes[node] |= {**apart, "rank0": [number, f"10.0.0.{node[1]}"]}
    found, _ = met(nodes, given={"MASTER_ADDR": "rank0"})
    assert (found.address, found.interfaces) == ("rank0", eth0(2))


@pytest.mark.parametrize("names", [("nowhere", "10.0.0.1"), ("nowhere", "silent")])
def test_where_the_name_leads_nowhere_another_address_of_the_first_is_found(met, names):
    nodes = machines(3)
    nodes["n2"]["has"] = "{node} has lo=127.0.0.1|{node} has ens3=10.0.0.2|{node} listens {port}"
    found, _ = met(nodes, *names)
    assert (found.address, found.interfaces) == ("10.0.0.1", {"n1": "eth0", "n2": "ens3", "n3": "eth0"})


def test_where_interfaces_alone_have_the_newer_family_they_meet_by_it(met):
    has = "{node} has lo=127.0.0.1|{node} has lo=::1|{node} has ib0=fd00::%s|{node} listens {port}"
    nodes = {
        f"n{own}": {"has": has % own} | {f"fd00::{other}": [f"fd00::{other}", f"fd00::{own}"] for other in (1, 2)}
        for own in (1, 2)
    }
    for node in nodes.values():
        node["nowhere"] = "its name cannot be resolved there"
    assert met(nodes, "nowhere")[0] == meeting.Meeting("fd00::1", 5000, {"n1": "ib0", "n2": "ib0"})


def test_an_address_by_whose_interface_no_others_are_reached_is_none(met):
    """They all get to the first one's address in one network, by an interface at which nobody gets to them."""
    nodes = machines(2)
    for number, node in enumerate(nodes.values(), 1):
        node["has"] = (
            f"{{node}} has nat0=192.168.0.{number}|{{node}} has eth0=10.0.0.{number}|{{node}} listens {{port}}"
        )
        node |= {"gate": ["192.0.2.9", f"192.168.0.{number}"], "192.168.0.1": "no answer", "192.168.0.2": "no answer"}
    assert met(nodes, "gate")[0] == meeting.Meeting("10.0.0.1", 5000, eth0(2))


def test_where_no_interface_is_known_ranks_choose_theirs(met):
    nodes = machines(2)
    for node in nodes.values():
        node["has"] = "{node} listens {port}"
    assert met(nodes, "10.0.0.1")[0] == meeting.Meeting("10.0.0.1", 5000, {})


def apart(met, *given, **more) -> Apart:
    with pytest.raises(Apart) as error:
        met(*given, **more)
    return error.value


def test_what_is_set_is_tried_alone(met):
    error = apart(met, machines(3), "10.0.0.1", given={"MASTER_ADDR": "nowhere"})
    assert str(error) == "n1, n2, n3 do not reach n1 at nowhere (its name cannot be resolved there)"
    assert (error.why, error.setting) == ({}, "MASTER_ADDR")


def test_two_nodes_that_do_not_reach_each_other_tell_at_which_addresses(met):
    nodes = machines(2)
    nodes["n2"] |= {"10.0.0.1": "no answer"}
    error = apart(met, nodes, "nowhere")
    said = "n2 does not reach n1 at nowhere (its name cannot be resolved there), 10.0.0.1 (no answer)"
    assert str(error).startswith(said) and error.setting == "MASTER_ADDR" and not error.why


def test_one_of_several_that_does_not_get_there_is_to_blame(met):
    nodes = machines(3)
    nodes["n3"] = {name: "no answer" if isinstance(knows, list) else knows for name, knows in nodes["n3"].items()}
    assert apart(met, nodes, "10.0.0.1").why == {"n3": "does not reach n1 at 10.0.0.1: no answer"}


def test_one_of_several_that_nobody_reaches_is_to_blame(met):
    nodes = machines(5)
    nodes["n4"] |= {"10.0.0.3": "no route to host"}
    assert apart(met, nodes, "10.0.0.1").why == {"n3": "is not reached by n4 at 10.0.0.3 (eth0): no route to host"}


def test_a_first_one_that_nobody_reaches_is_to_blame_where_the_second_is_reached(met):
    nodes = machines(3)
    for node in ("n2", "n3"):
        nodes[node] |= {"10.0.0.1": "no answer"}
    (node, why), *others = apart(met, nodes, "10.0.0.1").why.items()
    assert (node, others) == ("n1", []) and why.startswith("is not reached, and n2 is: n2, n3 do not reach n1 at 10.0")


@pytest.mark.parametrize("interface", ["ib0", "eth0,ib0"])
def test_an_interface_that_is_set_is_there(met, interface):
    error = apart(met, machines(2), "10.0.0.1", given={"GLOO_SOCKET_IFNAME": interface})
    assert (str(error), error.setting) == ("n1 has no address at ib0; n2 has no address at ib0", "GLOO_SOCKET_IFNAME")


def test_nodes_are_reached_at_an_interface_that_is_set(met):
    error = apart(met, machines(2), "10.0.0.1", given={"GLOO_SOCKET_IFNAME": "docker0"})
    assert str(error).startswith("n1 is not reached by n2 at 172.17.0.1 (docker0): another machine answers; n2 is not")
    assert error.setting == "GLOO_SOCKET_IFNAME"


def test_one_that_is_set_need_not_lead_to_the_address(met):
    nodes = machines(2)
    for number, node in enumerate(nodes.values(), 1):
        node["has"] = f"{{node}} has ib0=10.1.0.{number}|{node['has']}"
        node |= {f"10.1.0.{other}": [f"10.1.0.{other}", f"10.1.0.{number}"] for other in (1, 2)}
    found, asked = met(nodes, "10.0.0.1", given={"GLOO_SOCKET_IFNAME": "ib0"})
    assert (found.address, found.interfaces) == ("10.0.0.1", eth0(2))
    assert asked == [("n2", "10.1.0.1"), ("n1", "10.1.0.2"), ("*", "10.0.0.1")]


@pytest.mark.parametrize(
    ("has", "why"),
    [
        (SILENT, "does not run its Python"),
        ("srun: error: {node}: task 1: Exited with exit code 9", "does not run its Python: exited with exit code 9"),
        ("{node} cannot address family not supported", "cannot listen: address family not supported"),
    ],
)
def test_a_node_that_does_not_begin_is_named(met, has, why):
    nodes = machines(3)
    nodes["n2"]["has"] = has
    error = apart(met, nodes, "10.0.0.1", together=0.5)
    assert (error.why, error.begun) == ({"n2": why}, True)


def test_where_most_do_not_begin_in_time_none_is_to_blame(met):
    nodes = {**machines(1), "n2": {"has": SILENT}, "n3": {"has": SILENT}}
    error = apart(met, nodes, "10.0.0.1", together=0.5)
    assert (error.why, error.begun) == ({}, False)
    assert str(error) == "n2 does not run its Python; n3 does not run its Python"


def test_a_node_that_does_not_answer_is_not_waited_for_for_long(met, monkeypatch):
    monkeypatch.setattr(meeting, "WAVE_SECONDS", 0.5)
    nodes = machines(2)
    del nodes["n2"]["10.0.0.1"]
    assert "n2" in str(apart(met, nodes, given={"MASTER_ADDR": "10.0.0.1"}))


def test_where_none_begins_none_is_to_blame(met):
    nodes = {node: {"has": SILENT} for node in ("n1", "n2")}
    assert not apart(met, nodes, "10.0.0.1", patience=0.5).begun


def test_where_the_tasks_end_their_last_word_is_told():
    command = ["sh", "-c", "echo srun: error: the job ends >&2; exit 1"]
    with pytest.raises(Apart, match=r"reach one another: srun: error: the job ends$") as error:
        meeting.meet(command, ["n1", "n2"], ["n1"], given={}, environment={}, patience=600.0, together=600.0)
    assert (error.value.begun, error.value.why) == (False, {})


@pytest.mark.parametrize(("port", "said"), [("http", "it is no port"), ("70000", "it is no port")])
def test_a_port_that_is_set_is_one(met, port, said):
    error = apart(met, machines(2), "10.0.0.1", given={"MASTER_PORT": port})
    assert (str(error), error.setting) == (said, "MASTER_PORT")


def test_a_port_that_is_set_is_free(met):
    nodes = machines(2)
    nodes["n1"]["has"] = "{node} cannot address already in use"
    error = apart(met, nodes, "10.0.0.1", given={"MASTER_PORT": "29500"})
    assert (str(error), error.setting) == ("n1 cannot listen: address already in use", "MASTER_PORT")
    assert not error.begun


def test_nobody_waits_once_the_job_is_to_end(met, monkeypatch):
    monkeypatch.setattr(meeting, "HEED_SECONDS", 0.2)
    nodes = {"n1": machine(1), "n2": {"has": SILENT}}
    assert not apart(met, nodes, "10.0.0.1", together=3600.0, over=lambda: True).why


def test_what_can_be_done_is_told_by_what_is_to_blame():
    assert Apart(why={"n2": "is not reached"}, setting="MASTER_ADDR").advice.startswith("leave these nodes out")
    assert Apart("it is no port", setting="MASTER_PORT").advice.startswith("set cluster.environment.MASTER_PORT to a")
    assert Apart("the job is to end").advice == ""


def test_a_node_is_called_by_its_own_name_and_by_slurms_address():
    said = "NodeName=n1 Arch=x86_64 NodeAddr=10.1.0.1 NodeHostName=n1"
    assert meeting.names("host1", said) == ["host1", "10.1.0.1"] and meeting.names("host1", "") == ["host1"]
