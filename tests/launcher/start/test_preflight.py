"""The nodes of a job are looked at before ranks start on them, all at once and, where that fails, one by one."""

import re

import pytest

from launcher.errors import NodesRefused, NotStarted
from launcher.plan import containers
from launcher.start import preflight

NODES = ["n1", "n2", "n3"]
SILENT = "does not start a task"


@pytest.fixture
def looked(runs, job, monkeypatch):
    """`looked()`: what a look at the three nodes of a run finds."""
    monkeypatch.setattr(preflight, "ASKED_SECONDS", 2.0)
    job.began_on("n[1-3]")

    def look(beside=False, *, unwanted=lambda: False, show=print, **cluster) -> dict[str, str]:
        run = runs.make(nodes=3, **cluster)
        heed = {"unwanted": unwanted, "show": show}
        return preflight.look(run, run.spec(), NODES, run.code_folder(), seconds=1.0, beside=beside, **heed)

    return look


@pytest.fixture
def quick(monkeypatch):
    """Minutes are moments."""
    for name, seconds in {"TICK": 0.02, "HEED": 0.02, "PREFLIGHT": 2.0}.items():
        monkeypatch.setattr(preflight, f"{name}_SECONDS", seconds)


ANSWERS = "for n in 1 2 3; do echo n$n is host$n; done"


def test_each_node_tells_its_hosts_name(job, looked):
    job.srun(look="for n in 3 1 2; do echo n$n is host$n.cluster; done")
    assert looked() == {f"n{n}": f"host{n}.cluster" for n in (1, 2, 3)}


def test_nodes_that_lack_something_are_named(job, looked):
    job.srun(look="echo n1 is n1; echo n3 has no python; echo n2 does not see /runs/r; exit 3")
    with pytest.raises(NodesRefused, match=r"^n2 does not see /runs/r; n3 has no python$") as refused:
        looked()
    assert refused.value.why == {"n2": "does not see /runs/r", "n3": "has no python"}


BANNER = "echo Welcome to n1; echo; echo 'n4 is down for a week';"


def test_what_a_site_has_its_tasks_say_is_no_word_about_a_node(job, looked):
    job.srun(look=f"{BANNER} for n in 1 2 3; do echo n$n is host$n; done")
    assert {"n1", "n2", "n3"} <= {*looked()}


@pytest.mark.parametrize(("refusal", "why"), [("", {}), ("echo n2 has no python;", {"n2": "has no python"})])
def test_nor_where_the_look_fails(job, looked, refusal, why):
    job.srun(look=f"{BANNER} echo n1 is n1; {refusal} exit 3", gone="exit 0")
    with pytest.raises(NotStarted) as failed:
        looked()
    assert getattr(failed.value, "why", {}) == why


@pytest.mark.parametrize("silent", NODES)
@pytest.mark.parametrize("look", ["exec sleep 60", "echo 'srun: error: Task launch failed on node n3' >&2; exit 1"])
def test_where_nothing_starts_on_some_they_are_looked_for_one_by_one(job, looked, monkeypatch, look, silent):
    """The first node, where this process is, too: it may start nothing more, and run what it has."""
    monkeypatch.setattr(preflight, "PREFLIGHT_SECONDS", 0.2)
    job.srun(look=look, gone=f'case "$*" in *={silent}\\ *) exit 1;; esac')
    with pytest.raises(NodesRefused) as refused:
        looked()
    assert refused.value.why == {silent: SILENT}


def test_a_node_that_does_not_even_answer_is_silent(runs, job, looked, monkeypatch):
    monkeypatch.setattr(preflight, "ASKED_SECONDS", 0.5)
    job.srun(gone='case "$*" in *=n3\\ *) exec sleep 60;; *=n2\\ *) exit 7;; esac')
    assert preflight.unusable(runs.spec(), {node: [] for node in NODES}) == {"n2": preflight.STILL_HELD, "n3": SILENT}


@pytest.mark.parametrize("gone", ["exit 0", "exit 1"])
def test_where_it_is_all_of_them_or_none_no_node_is_to_blame(job, looked, gone):
    job.srun(look="echo 'srun: error: Unable to create step' >&2; exit 1", gone=gone)
    with pytest.raises(NotStarted, match=r"on every node failed: srun: error: Unable to create step$") as failed:
        looked()
    assert not isinstance(failed.value, NodesRefused)


def test_a_look_that_takes_too_long_is_given_up(job, looked, monkeypatch):
    monkeypatch.setattr(preflight, "PREFLIGHT_SECONDS", 0.2)
    job.srun(look="exec sleep 60", gone="exit 0")
    with pytest.raises(NotStarted, match=r"^a node of n1,n2,n3 does not start a task$"):
        looked()


def test_with_options_of_the_users_a_node_has_long_to_begin_as_where_it_fetches_an_image(job, looked, quick, tmp_path):
    job.srun(
        look=f"echo n1 begins; echo n1 is host1; until [ -e {tmp_path}/shown ]; do sleep 0.1; done; {ANSWERS}",
        gone=f"touch {tmp_path}/shown",  # after the time that a node has without them
    )
    shown = []
    assert {*looked(srun={"container_image": "a#b"}, show=shown.append)} == {*NODES}
    waits = [each for each in shown if each.startswith("waiting: n2, n3 to begin, ")]  # the first look may hear nobody
    assert waits and all(each.endswith("s; a#b may be fetched") for each in waits) and shown[-1] == "starting"


@pytest.mark.parametrize("long", [{"srun": {"container-name": "mine"}}, {"python": "apptainer exec a.sif python3"}])
def test_it_has_long_only_where_a_container_is_made(runs, long):
    assert preflight.patience(runs.spec(**long)) == containers.BEGIN_SECONDS
    assert preflight.patience(runs.spec(srun={"mpi": "none"}, python="/env/bin/python")) == preflight.PREFLIGHT_SECONDS


def test_of_those_that_have_not_begun_only_who_starts_nothing_at_all_is_refused(job, looked, quick):
    job.srun(look="echo n1 begins; exec sleep 60", gone='case "$*" in *=n3\\ *) exit 1;; esac')
    with pytest.raises(NodesRefused) as refused:
        looked(srun={"container-name": "mine"})
    assert refused.value.why == {"n3": SILENT}


STUCK = "for n in 1 2 3; do echo n$n begins; done; echo n1 is n1; {}; exec sleep 60"


def test_a_node_that_begins_and_does_not_answer_is_stuck(job, looked, quick, monkeypatch):
    monkeypatch.setattr(preflight, "PREFLIGHT_SECONDS", 0.2)
    job.srun(look=STUCK.format("echo n3 is n3"), gone="exit 0")
    with pytest.raises(NodesRefused) as refused:
        looked()
    assert refused.value.why == {"n2": preflight.STUCK}


def test_where_most_of_them_are_the_file_server_may_be_away(job, looked, quick, monkeypatch):
    monkeypatch.setattr(preflight, "PREFLIGHT_SECONDS", 0.2)
    job.srun(look=STUCK.format(":"), gone="exit 0")
    with pytest.raises(NotStarted, match=rf"{preflight.STUCK}$") as failed:
        looked()
    assert not isinstance(failed.value, NodesRefused)


def test_what_the_ranks_find_in_their_environment_the_look_does_too(job, looked, tmp_path):
    job.srun(look=f"echo $APPTAINER_BIND > {tmp_path}/bind; {ANSWERS}")
    looked(environment={"APPTAINER_BIND": "/data"})
    assert (tmp_path / "bind").read_text() == "/data\n"


def test_nodes_that_never_begin_are_given_up_in_the_end(job, looked, quick, monkeypatch):
    monkeypatch.setattr(containers, "BEGIN_SECONDS", 0.6)
    job.srun(look="echo n1 is n1; echo n3 is n3; exec sleep 60", gone="exit 0")
    with pytest.raises(NodesRefused) as refused:
        looked(srun={"container-name": "mine"})
    assert refused.value.why == {"n2": SILENT}


def test_a_start_that_is_to_end_is_nobodys_fault(job, looked, quick):
    job.srun(look="exec sleep 60", gone="exit 1")
    assert looked(srun={"container-name": "mine"}, unwanted=lambda: True) == {}


NO_IMAGE = """\
echo 'srun: error: task 1 launch failed: Slurmd could not execve job' >&2
echo 'slurmstepd: error: pyxis: failed to import docker image' >&2
echo 'slurmstepd: error: pyxis:     [ERROR] No such image: a#b' >&2
echo 'slurmstepd: error: spank: required plugin spank_pyxis.so: user_init() failed with rc=-1' >&2
"""


def test_a_node_whose_container_fails_is_refused_although_srun_ends_well(job, looked):
    job.srun(look=f"echo n1 is n1; echo n3 is n3; {NO_IMAGE}", gone="exit 0")
    with pytest.raises(NodesRefused) as refused:
        looked(srun={"container-image": "a#b"})
    assert refused.value.why == {"n2": f"{SILENT}: No such image: a#b"}


@pytest.mark.parametrize("others", ["", "echo n2 is n2;"])
def test_where_most_of_them_fail_it_may_be_the_registry(job, looked, others):
    job.srun(look=f"{others} {NO_IMAGE}", gone="exit 0")
    with pytest.raises(NotStarted, match=r"on every node failed: No such image: a#b; ") as failed:
        looked(srun={"container-image": "a#b", "mpi": "none"})
    assert not isinstance(failed.value, NodesRefused)
    assert "/rotnet-" in str(failed.value).partition("`sslrun resume ")[2]
    assert str(failed.value).endswith(" cluster.srun.container-image=VALUE` starts it otherwise")


def test_what_srun_says_of_no_option_may_be_of_any(job, looked):
    job.srun(look="echo 'srun: error: no' >&2; exit 1", gone="exit 0")
    with pytest.raises(NotStarted, match=r"srun: error: no; .* cluster.srun.mpi=VALUE cluster.srun.propagate=VALUE`"):
        looked(srun={"mpi": "pmi9", "propagate": "X", "hint": None})


LACKS = "does not see /x inside the container: cluster.srun.container-mounts"


@pytest.mark.parametrize(
    "cluster, fix",
    [
        ({"srun": {"container-image": "a#b"}}, r'"cluster\.srun\.container-mounts=\[/.*\]"'),
        ({"python": "apptainer exec a.sif python"}, r"\"cluster\.python='apptainer exec --bind /.* a\.sif python'\""),
    ],
)
def test_what_a_container_is_to_show_is_said_as_a_line_to_type(runs, cluster, fix):
    run = runs.make(**cluster)
    said = preflight.remedy(run, run.spec(), f"n1 {LACKS}")
    assert re.fullmatch(rf"`sslrun resume {run.path} {fix}` shows all", said), said
    assert str(runs.folder) in said


def test_what_nobody_knows_a_line_for_has_none(runs):
    run = runs.make(python="podman run a python")
    for said in (f"n1 {LACKS}", "n1 has no python"):
        assert preflight.remedy(run, run.spec(), said) == ""


@pytest.mark.parametrize("beside", [True, False])
def test_it_waits_for_no_earlier_step_where_one_has_not_ended(job, looked, tmp_path, beside):
    job.srun(look=f'echo "$*" > {tmp_path}/asked; for n in 1 2 3; do echo n$n is host$n; done')
    looked(beside)
    assert ("--overlap" in (tmp_path / "asked").read_text()) == beside
