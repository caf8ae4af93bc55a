"""What a queue could never start is refused with the field and with what would fit, and what fits is not.

The cluster is that of recorded.py: `main`, `short`, `single`, `physics` and `closed` have n1 and n2 (2 GPUs, 4 CPUs,
16 GB); `cpu` has c1 (no GPUs, 32 CPUs, 128 GB); `mixed` has these three, g1 (8 GPUs, 16 CPUs, 64 GB), g2 and g3 (4
GPUs, 8 CPUs, 32 GB), and gives a job at most 5 nodes.
"""

import dataclasses

import pytest
import recorded

from launcher.compose.training import resolve
from launcher.errors import ClusterError, InputError
from launcher.slurm import limits
from launcher.spec.runspec import freeze
from launcher.spec.schema import ClusterConfig


@pytest.fixture(scope="module")
def spec():
    return resolve(["method=rotnet", "recipe=tiny", "cluster=generic"])[0]


@pytest.fixture
def asked(spec, slurm_said, monkeypatch):
    """`asked(nodes=2, partition="mixed")`: the spec of a run that wants this; one task with one GPU and one CPU."""
    monkeypatch.delenv("SBATCH_ACCOUNT", raising=False)
    slurm_said.cluster()

    def make(nodes: int = 1, tasks: int = 1, least: int | None = None, **cluster):
        small = {"name": "test", "gpus_per_node": 1, "cpus_per_node": 1, "timeout_min": 5, **cluster}
        where = freeze(ClusterConfig(**small))
        return dataclasses.replace(spec, nodes=nodes, least_nodes=least, tasks_per_node=tasks, cluster=where)

    return make


# -- which partition -------------------------------------------------------------------------------------------------


def test_the_partition_is_the_one_that_was_named_or_the_default(asked):
    assert limits.find("short").name == "short"
    assert limits.find(None).name == "main"
    assert limits.find("main,short") is None  # Slurm chooses, and judges


def test_a_cluster_may_have_no_default(asked, slurm_said):
    slurm_said.says("scontrol show partition -o", recorded.PARTITIONS.replace("Default=YES", "Default=NO"))
    assert limits.find(None) is None
    limits.check(asked(nodes=99))
    assert limits.usable(asked()) == []


@pytest.mark.parametrize("given", ["gpuu", "main,gpuu", "gpuu,main"])
def test_a_partition_that_is_not_there_is_named_with_those_that_are(asked, given):
    with pytest.raises(InputError) as refused:
        limits.find(given)
    known = "it has: closed, cpu, main, mixed, physics, short, single"
    assert str(refused.value) == f"cluster.partition=gpuu: the cluster has no such partition; {known}"


def test_of_several_partitions_nothing_is_judged_but_their_names(asked):
    limits.check(asked(nodes=99, partition="closed,short", timeout_min=9999))
    with pytest.raises(InputError, match=r"cluster\.partition=none"):
        limits.check(asked(partition="short,none"))


# -- what fits exactly, and one more ---------------------------------------------------------------------------------

NO_GPUS = {"gpus_per_node": 0}
FOUR = {"tasks": 4, "gpus_per_node": 4, "cpus_per_node": 4, "partition": "mixed"}
FITS = {
    "the time limit of the partition": {"partition": "short", "timeout_min": 10},
    "any time where there is no limit": {"partition": "mixed", "timeout_min": 99999},
    "all nodes": {"nodes": 2},
    "as many nodes as a job may have": {"nodes": 1, "partition": "single"},
    "and where that is fewer than there are": {"nodes": 5, "partition": "mixed", **NO_GPUS},
    "all GPUs of a node": {"tasks": 2, "gpus_per_node": 2},
    "all GPUs of the one node that has so many": {"tasks": 8, "gpus_per_node": 8, "partition": "mixed"},
    "all nodes with so many GPUs": {"nodes": 3, **FOUR},
    "a partition without GPUs": {"partition": "cpu", "tasks": 32, "cpus_per_node": 32, **NO_GPUS},
    "all CPUs of a node": {"tasks": 2, "cpus_per_task": 2, **NO_GPUS},
    "all CPUs of the nodes with so many GPUs": {**FOUR, "nodes": 3, "cpus_per_node": 8},
    "all memory of a node": {"mem_gb": 16},
    "all memory, whatever it is": {"mem_gb": 0, "nodes": 2},
    "all memory of a node, by its GPUs": {"tasks": 2, "gpus_per_node": 2, "cpus_per_node": 2, "mem_per_gpu": "8G"},
    "all memory of a node, by its CPUs": {"cpus_per_task": 4, "mem_per_cpu": "4096M"},
    "all memory of nodes with so many GPUs": {**FOUR, "nodes": 3, "mem_gb": 32},
    "a range that ends beyond all nodes": {"least": 2, "nodes": 8},
    "a range to as many nodes as a job may have": {"least": 2, "nodes": 4, "spare_nodes": 1, "partition": "mixed"},
    "a node and its spare": {"nodes": 1, "spare_nodes": 1},
    "nodes that are not left out": {"nodes": 3, "partition": "mixed", "exclude": "g[1-2],c1"},
}
TIME = "ends jobs after 10 minutes; use cluster.timeout_min=10: a run goes on over several jobs"
TOO_MUCH = {
    "cluster.partition=closed: it is DRAIN, and Slurm takes no jobs for it; use another, or wait": {
        "partition": "closed", "nodes": 9,
    },
    f"cluster.timeout_min=11: partition short {TIME}": {"partition": "short", "timeout_min": 11},
    "nodes=3: partition main gives a job at most 2 nodes with 1 GPUs; use nodes=2": {"nodes": 3},
    "nodes=2: partition single gives a job at most 1 nodes": {"nodes": 2, "partition": "single"},
    "nodes=6: partition mixed gives a job at most 5 nodes; use nodes=5, or another partition": {
        "nodes": 6, "partition": "mixed", **NO_GPUS,
    },
    "nodes=4: partition mixed gives a job at most 3 nodes with 4 GPUs; use nodes=3": {"nodes": 4, **FOUR},
    "nodes=2: partition mixed gives a job at most 1 nodes with 8 GPUs": {
        "nodes": 2, "tasks": 8, "gpus_per_node": 8, "partition": "mixed",
    },
    "nodes=2: partition main gives a job at most 1 nodes": {"nodes": 2, "exclude": "n1"},
    "nodes=2: partition main gives a job at most 2 nodes with 1 GPUs, and cluster.spare_nodes=1 is asked for besides; "
    "use nodes=1, fewer spare nodes, or another partition": {"nodes": 2, "spare_nodes": 1},
    "nodes=1: partition main gives a job at most 2 nodes with 1 GPUs, and cluster.spare_nodes=2 is asked for besides; "
    "use fewer spare nodes, or another partition": {"nodes": 1, "spare_nodes": 2},
    "nodes=4-8: partition main gives a job at most 2 nodes with 1 GPUs; use nodes=2, or": {"least": 4, "nodes": 8},
    # Slurm would take it and let it wait for ever.
    "nodes=2-8: partition mixed gives a job at most 5 nodes; use nodes=2-5, or another partition": {
        "least": 2, "nodes": 8, "partition": "mixed",
    },
    "nodes=2-8: partition mixed gives a job at most 5 nodes, and cluster.spare_nodes=1 is asked for besides; "
    "use nodes=2-4": {"least": 2, "nodes": 8, "spare_nodes": 1, "partition": "mixed"},
    "cluster.gpus_per_node=8: the nodes of partition main have 2 at most; use cluster.gpus_per_node=2": {
        "tasks": 3, "gpus_per_node": 8,
    },
    "cluster.gpus_per_node=8: the nodes of partition mixed have 4 at most": {
        "tasks": 5, "gpus_per_node": 8, "partition": "mixed", "exclude": "g1",
    },
    "cluster.gpus_per_node=1: the nodes of partition cpu have 0 at most; use a partition with GPUs": {
        "partition": "cpu",
    },
    # c1 has 32 CPUs, but no GPUs.
    "cluster.cpus_per_task=5: 20 CPUs a node are needed, and the nodes of partition mixed have 16; use at most 4": {
        **FOUR, "cpus_per_task": 5,
    },
    "cluster.cpus_per_gpu=3: 6 CPUs a node are needed, and the nodes of partition main have 4; use at most 2": {
        "tasks": 2, "gpus_per_node": 2, "cpus_per_gpu": 3,
    },
    "cluster.exclude=n[1-2]: it leaves no node of partition main; leave out fewer": {"exclude": "n[1-2]"},
    "cluster.cpus_per_node=5: 5 CPUs a node are needed, and the nodes of partition main have 4; "
    "use cluster.cpus_per_node=4": {"cpus_per_node": 5},
    # Fewer CPUs a task are none: nor does it help where somebody gave their number.
    "tasks_per_node=5: 5 CPUs a node are needed, and the nodes of partition main have 4; use at most 4": {
        "tasks": 5, "cpus_per_task": 1, **NO_GPUS,
    },
    "nodes=2: partition mixed gives a job at most 1 nodes with 4 GPUs": {**FOUR, "nodes": 2, "cpus_per_node": 12},
    "cluster.mem_gb=16.5: the nodes of partition main have 16 GB; ask for less; cluster.mem_gb=0 is all": {
        "mem_gb": 16.5,
    },
    "cluster.mem_gb=65: the nodes of partition mixed have 64 GB": {**FOUR, "mem_gb": 65},
    "cluster.mem_per_gpu=9G: the nodes of partition main have 16 GB": {
        "tasks": 2, "gpus_per_node": 2, "cpus_per_node": 2, "mem_per_gpu": "9G",
    },
    "cluster.mem_per_cpu=4097M: the nodes of partition main have 16 GB": {"cpus_per_task": 4, "mem_per_cpu": "4097M"},
    "nodes=2: partition mixed gives a job at most 1 nodes with 4 GPUs; use nodes=1": {
        **FOUR, "nodes": 2, "mem_gb": 32.5,
    },
}  # fmt: skip


@pytest.mark.parametrize("what", FITS)
def test_what_just_fits_is_taken(asked, what):
    limits.check(asked(**FITS[what]))


@pytest.mark.parametrize("said", TOO_MUCH)
def test_what_is_one_too_many_is_refused(asked, said):
    with pytest.raises(InputError) as refused:
        limits.check(asked(**TOO_MUCH[said]))
    assert str(refused.value).startswith(said)


def test_the_fewer_nodes_of_two_limits_count(asked, slurm_said):
    """A job of a partition may have more nodes than there are."""
    one = recorded.PARTITIONS.replace("MaxNodes=1 ", "MaxNodes=3 ")
    slurm_said.says("scontrol show partition -o", one)
    with pytest.raises(InputError, match="at most 2 nodes"):
        limits.check(asked(nodes=3, partition="single"))


def test_a_partition_that_is_inactive_is_refused_and_one_that_is_down_is_only_said(asked, slurm_said):
    """A real Slurm (22.05) queues jobs for one that is DOWN, as in a maintenance, and refuses them for the others."""
    assert limits.waits(asked(partition="closed")) == limits.waits(asked()) == ""
    slurm_said.says("scontrol show partition -o", recorded.PARTITIONS.replace("State=DRAIN", "State=INACTIVE"))
    with pytest.raises(InputError, match="partition=closed: it is INACTIVE, and Slurm takes no jobs for it"):
        limits.check(asked(partition="closed"))
    slurm_said.says("scontrol show partition -o", recorded.PARTITIONS.replace("State=DRAIN", "State=DOWN"))
    limits.check(asked(partition="closed"))
    assert limits.waits(asked(partition="closed")).startswith("partition closed is DOWN: its jobs wait in the queue")
    with pytest.raises(InputError, match="nodes=9: partition closed gives a job at most 2"):
        limits.check(asked(partition="closed", nodes=9))


def test_a_partition_without_nodes_is_said(asked, slurm_said):
    slurm_said.says("scontrol show partition -o", recorded.PARTITIONS.replace("Nodes=n[1-2] ", "Nodes= "))
    with pytest.raises(InputError) as refused:
        limits.check(asked())
    assert str(refused.value) == "cluster.partition=main: it has no nodes; use another"


def test_memory_is_not_judged_where_nobody_asks_for_any(asked, slurm_said):
    """Slurm says 1 MB of nodes whose memory nobody configured."""
    slurm_said.cluster(recorded.NODES.replace("|16384|", "|1|"))
    limits.check(asked())
    limits.check(asked(mem_gb=0))
    with pytest.raises(InputError, match=r"mem_gb=1: .* have 0\.000976562 GB"):
        limits.check(asked(mem_gb=1))


# -- whose partition it is -------------------------------------------------------------------------------------------

TAKES = "partition physics does not take it; it takes: physics, biology"


def test_an_account_that_the_partition_does_not_take(asked, monkeypatch):
    limits.check(asked(partition="physics", account="biology"))
    with pytest.raises(InputError, match=f"cluster.account=maths: {TAKES}"):
        limits.check(asked(partition="physics", account="maths"))
    monkeypatch.setenv("SBATCH_ACCOUNT", "physics")
    limits.check(asked(partition="physics"))
    with pytest.raises(InputError, match=r"cluster\.account=maths"):  # the run's own goes before the shell's
        limits.check(asked(partition="physics", account="maths"))
    monkeypatch.setenv("SBATCH_ACCOUNT", "maths")
    with pytest.raises(InputError, match=f"cluster.account=maths: {TAKES}"):
        limits.check(asked(partition="physics"))


def test_no_account_where_nobody_has_one_to_begin_with(asked, slurm_said):
    said = "cluster.account=None: partition physics asks for one; it takes: physics, biology"
    with pytest.raises(InputError, match=said):
        limits.check(asked(partition="physics"))
    # No database is at hand for a real one: this is what slurm.conf calls it.
    slurmdbd = recorded.CONFIG.replace("accounting_storage/none", "accounting_storage/slurmdbd")
    slurm_said.says("scontrol show config", slurmdbd)
    limits.check(asked(partition="physics"))
    slurm_said.says("scontrol show config", "")
    limits.check(asked(partition="physics"))


def test_a_partition_for_all_takes_any_account(asked, slurm_said):
    limits.check(asked(account="maths"))
    assert not slurm_said.commands("scontrol show config")


# -- the nodes that a run could get ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "names"),
    [
        ({}, "n1 n2"),
        ({"partition": "mixed"}, "c1 g1 g2 g3 n1 n2"),
        ({"partition": "cpu,short"}, "c1 n1 n2"),
        ({"partition": "mixed", "exclude": "g[1-2],c1"}, "g3 n1 n2"),
        ({"partition": "cpu,short", "exclude": "n1"}, "c1 n2"),
        ({"exclude": "n[1-x]"}, "n1 n2"),  # Slurm says what is wrong with it
    ],
)
def test_usable_nodes_are_the_partitions_without_those_left_out(asked, where, names):
    assert " ".join(node.name for node in limits.usable(asked(**where))) == names


@pytest.mark.parametrize(
    ("where", "away"),
    [
        ({}, True),  # n2 is drained
        ({"exclude": "n2"}, False),  # n1 has a job and room for another
        ({"exclude": "n1"}, True),
        ({"partition": "cpu"}, True),  # c1 is down
        ({"partition": "mixed", "exclude": "n[1-2],c1,g[2-3]"}, False),  # g1 is full
        ({"partition": "mixed", "exclude": "n[1-2],c1,g1,g3"}, True),  # g2 is idle, and does not answer
    ],
)
def test_nodes_that_come_back_are_waited_for(asked, slurm_said, where, away):
    slurm_said.cluster(recorded.NODES_AT_WORK)
    assert limits.away(asked(**where)) is away


@pytest.mark.parametrize(
    ("state", "away"),
    # Those of them that sinfo's manual lists and a test cluster is seldom in.
    [("completing", False), ("planned", False), ("reserved", False), ("mixed-", False), ("idle~", False)]
    + [(state, True) for state in ("draining", "down*", "fail", "maint", "idle*", "mixed*")],
)
def test_a_state_is_away_or_in_use(asked, slurm_said, state, away):
    slurm_said.cluster(recorded.NODES.replace("n2|4|16384|gpu:2|idle", f"n2|4|16384|gpu:2|{state}"))
    assert limits.away(asked()) is away


# -- the fields behind Slurm's words ---------------------------------------------------------------------------------

SAID = {
    "sbatch: Invalid feature specification": ("cluster.constraint=a100", {"constraint": "a100", "partition": "p"}),
    "sbatch: Invalid generic resource (gres) specification": ("cluster.gres=gpu:7", {"gres": "gpu:7"}),
    "sbatch: Invalid node name specified": (
        "cluster.exclude=n7, cluster.additional_parameters.nodelist=n9",
        {"exclude": "n7", "additional_parameters": {"nodelist": "n9", "reservation": "mine"}, "constraint": "a100"},
    ),
    "sbatch: Requested reservation is invalid": (
        "cluster.additional_parameters.reservation=mine",
        {"additional_parameters": {"reservation": "mine", "nodelist": "n1"}, "account": "vision"},
    ),
    "sbatch: Invalid qos specification": ("cluster.qos=low", {"qos": "low", "partition": "p"}),
    "sbatch: Invalid account or account/partition combination specified": (
        "cluster.account=vision, cluster.partition=p",
        {"account": "vision", "partition": "p", "qos": "low"},
    ),
    "sbatch: Invalid partition name specified": ("cluster.partition=p", {"partition": "p", "account": "vision"}),
    "sbatch: Requested node configuration is not available": (
        "cluster.constraint=a100, cluster.gres=gpu:7, cluster.exclude=n7, cluster.additional_parameters.nodelist=n9",
        {
            "constraint": "a100",
            "gres": "gpu:7",
            "exclude": "n7",
            "qos": "low",
            "additional_parameters": {"nodelist": "n9", "reservation": "mine"},
        },
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_slurms_refusal_is_followed_by_what_was_given_for_it(asked, said):
    fields, given = SAID[said]
    assert str(limits.explained(ClusterError(said), asked(**given))) == f"{said}; look at {fields}"


@pytest.mark.parametrize("said", ["sbatch: Invalid feature specification", "sbatch: Invalid time specification"])
def test_where_nothing_was_given_slurms_words_stay_as_they_are(asked, said):
    error = ClusterError(said)
    assert limits.explained(error, asked(partition="p")) is error
