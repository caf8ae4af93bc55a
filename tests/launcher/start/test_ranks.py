"""The ranks of one start on a job's nodes: started, and seen to their end though srun waits for ever."""

import threading
from pathlib import Path

import pytest
import recorded
from recorded import Refused

from launcher.run.files import write_json
from launcher.slurm.meeting import Meeting
from launcher.start import preflight, ranks
from launcher.start.handover import Start
from launcher.start.standby import Standby
from launcher.start.told import Told

FAILED = "echo 'srun: error: n2: task 1: Exited with exit code 1' >&2"
KILLED = "echo 'srun: error: n1: task 0: Killed' >&2"
AWAY = Refused("slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")
NODES = ["n1", "n2", "n3"]
MEETING = Meeting("10.1.0.1", 10001, {"n1": "eth0", "n2": "ib0", "n3": "eth0"})


@pytest.fixture
def run(runs, job, monkeypatch):
    """A run on three nodes, of which Slurm knows no step."""
    monkeypatch.setattr(ranks, "END_SECONDS", 0.1)
    monkeypatch.setattr(ranks, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(ranks, "GONE_SECONDS", 60.0)
    monkeypatch.setattr(preflight, "ASKED_SECONDS", 2.0)
    job.began_on("n[1-3]")
    run = runs.make(nodes=3)
    (run.path / "heartbeats").mkdir()
    before = {*threading.enumerate()}
    yield run
    for thread in {*threading.enumerate()} - before:  # what is killed in vain is asked for a moment longer
        thread.join(60)


class Alive:
    """The ranks, as long as they are not killed: `step(words)` answers squeue, `kill(words)` scancel."""

    def __init__(self, file: Path):
        self.file, self.steps = file, recorded.STEPS_7.replace("|", "\x1f")
        file.touch()

    def step(self, _) -> str:
        return self.steps if self.file.exists() else ""

    def kill(self, _) -> str:
        self.file.unlink(missing_ok=True)
        return ""

    @property
    def srun(self) -> str:
        """What srun does meanwhile, ten seconds long at most."""
        return f"for n in $(seq 500); do [ ! -e {self.file} ] || sleep 0.02; done"


@pytest.fixture
def alive(run, job, tmp_path) -> Alive:
    """Ranks of which Slurm knows, and which it kills where it is asked to."""
    alive = Alive(tmp_path / "alive")
    job.slurm.says("squeue --steps", alive.step)
    job.slurm.says("scancel", alive.kill)
    return alive


@pytest.fixture
def impatient(alive, job, monkeypatch):
    """Ranks that cannot be killed are given up on soon."""
    monkeypatch.setattr(ranks, "GONE_SECONDS", 0.3)
    job.slurm.says("scancel", "")


@pytest.fixture
def ended(run, tmp_path, monkeypatch):
    """`ended()`: how the ranks of its first start did."""
    monkeypatch.setattr(Told, "pass_on", lambda *_: None)

    def start(nodes=NODES, **more) -> ranks.Ended:
        given = {"meeting": MEETING, "generation": 1, "told": Told(), "standby": Standby(), "beside": False, **more}
        found = []
        thread = threading.Thread(
            target=lambda: found.append(ranks.start(run, run.spec(), tmp_path, nodes, **given)), daemon=True
        )
        thread.start()
        thread.join(120)
        assert found, "it goes on for ever"
        return found[0]

    return start


def beats(run, rank: int, node: str, pid: int) -> None:
    known = {"generation": 1, "rank": rank, "host": node, "pid": pid, "stage": "training", "step": 1, "points": 1}
    times = {"still_s": 0.0, "every_s": 1.0, "alive_s": 1.0, "marks": 0, "stalled": False, "joined": True}
    write_json(run.path / "heartbeats" / f"rank{rank}.json", known | times)


def test_once_one_has_failed_the_others_are_killed_and_srun_ends(job, ended, alive):
    """By a signal to the step that was started: Slurm's own end of a step would wait for KillWait."""
    job.srun(f"{FAILED}; {alive.srun}; {KILLED}; exit 137")
    assert ended() == ranks.Ended(137, 1, "rank 1 on n2: Exited with exit code 1", lost={}, over=True)
    assert job.slurm.commands("scancel") == [["scancel", "--signal=KILL", "7.0"]]


@pytest.mark.parametrize("program", ["squeue --steps", "scancel"])
def test_they_are_killed_once_a_controller_that_was_away_is_back(job, ended, alive, program):
    back = {"squeue --steps": alive.step, "scancel": alive.kill}[program]
    job.slurm.says(program, AWAY, AWAY, AWAY, back)
    job.srun(f"{FAILED}; {alive.srun}; {KILLED}; exit 137")
    found = ended()
    assert (found.exit_code, found.lost, found.over) == (137, {}, True)
    assert not alive.file.exists()


def test_where_it_stays_away_they_are_given_up_and_no_node_is_blamed(job, ended, alive, monkeypatch):
    """For CONTROLLER_SECONDS, of which GONE_SECONDS are no part: nobody was asked."""
    monkeypatch.setattr(ranks.job, "CONTROLLER_SECONDS", 1.0)
    monkeypatch.setattr(ranks, "GONE_SECONDS", 0.0)
    for program in ("squeue --steps", "scontrol show job"):
        job.slurm.says(program, AWAY)
    job.srun(f"{FAILED}; exec sleep 10", gone='case "$*" in *=n3\\ *) exit 1;; esac')
    found = ended()
    assert (found.exit_code, found.rank, found.lost, found.over) == (-9, 1, {}, False)
    assert len(job.slurm.commands("squeue --steps")) > 1 and not job.slurm.commands("scancel")


def test_one_that_could_not_be_launched_is_waited_for_by_nobody(job, ended, alive):
    job.srun(f"echo 'srun: error: task 1 launch failed: Slurmd could not execve job' >&2; {alive.srun}; exit 137")
    found = ended()
    assert (found.rank, found.how) == (1, "rank 1 on n2: launch failed: Slurmd could not execve job")
    assert job.slurm.commands("scancel")


def test_others_that_end_by_themselves_are_not_killed(job, ended, monkeypatch):
    monkeypatch.setattr(ranks, "END_SECONDS", 60.0)
    job.srun(f"{FAILED}; {KILLED}; exit 1")
    assert ended() == ranks.Ended(1, 1, "rank 1 on n2: Exited with exit code 1", lost={}, over=True)
    assert not job.slurm.commands("scancel")


def test_while_none_has_failed_nothing_is_killed(job, ended, alive, monkeypatch):
    monkeypatch.setattr(ranks, "END_SECONDS", 0.0)
    job.srun("echo 'slurmstepd: a word' >&2; sleep 0.5")
    assert ended() == ranks.Ended(0, None, "slurmstepd: a word", lost={}, over=True)
    assert not job.slurm.commands("scancel")


@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_ranks_whose_srun_was_killed_are_killed_too(job, ended, alive, name):
    job.srun(f"echo 'srun: a word' >&2; kill -{name} $$")
    found = ended()
    assert (found.rank, found.how, found.over) == (None, f"srun was killed by SIG{name}", True)
    assert not alive.file.exists()


def test_a_step_that_could_not_begin_has_not_ended_the_one_before(job, ended):
    job.srun("echo 'srun: error: Unable to create step for job 7: Requested nodes are busy' >&2; exit 1", gone="exit 0")
    found = ended()
    assert (found.rank, found.lost, found.over) == (None, {}, False)
    assert found.how == "srun: error: Unable to create step for job 7: Requested nodes are busy"


def test_where_srun_waits_for_ever_each_node_is_asked_for_what_is_left_there(run, job, ended, impatient, tmp_path):
    """Of n2 a rank cannot be killed, and on n3 nothing starts: it is dead, and Slurm does not know yet."""
    beats(run, 0, "n1", 101)
    beats(run, 1, "n2", 102)
    words = 'echo "$*" | tr "\\n" " " | sed "s/.*--nodelist=\\([^ ]*\\) .*done *sh/\\1/"'
    asked = f"echo $({words}) >> {tmp_path}/asked"
    by_node = 'case "$*" in *=n1\\ *) exit 0;; *=n2\\ *) exit 7;; esac; exit 1'
    job.srun(f"{FAILED}; exec sleep 10", gone=f"{asked}; {by_node}")
    found = ended()
    assert found.lost == {"n2": preflight.STILL_HELD, "n3": preflight.SILENT}
    assert (found.exit_code, found.rank, found.over) == (-9, 1, False)  # it has not waited for srun
    assert sorted((tmp_path / "asked").read_text().split("\n")) == ["", "n1 101", "n2 102", "n3"]


@pytest.mark.parametrize("says", [{"state": "COMPLETING"}, {"state": "SUSPENDED"}, None])
def test_while_slurm_ends_the_job_or_is_not_there_no_node_is_blamed(job, ended, impatient, says):
    job.srun(f"{FAILED}; exec sleep 10", gone='case "$*" in *=n3\\ *) exit 1;; *=n2\\ *) exit 7;; esac')
    if says:
        job.is_now("n[1-3]", **says)
    else:
        job.slurm.says("scontrol show job", AWAY)
    found = ended()
    assert (found.lost, found.over) == ({}, False)


@pytest.mark.parametrize(("gone", "lost"), [("exit 1", []), ('case "$*" in *=n1\\ *) exit 7;; esac; exit 1', NODES)])
def test_where_nothing_starts_on_any_node_none_is_blamed(job, ended, impatient, gone, lost):
    job.srun(f"{FAILED}; exec sleep 10", gone=gone)
    assert sorted(ended().lost) == lost


def test_a_first_node_that_starts_nothing_more_is_lost(job, ended, impatient):
    job.srun(f"{FAILED}; exec sleep 10", gone='case "$*" in *=n1\\ *) exit 1;; esac')
    assert ended().lost == {"n1": preflight.SILENT}


def test_nodes_of_which_slurm_knows_are_lost(job, ended):
    job.srun("echo 'srun: error: Node failure on n[2,9]' >&2; exit 1")
    found = ended()
    assert found.lost == {"n2": "is lost"} and found.over  # n9 is another job's


def test_what_srun_waits_for_on_a_lost_node_is_no_rank_that_lives(job, ended, impatient):
    job.srun("echo 'srun: error: Node failure on n3' >&2; exec sleep 10", gone="exit 0")
    found = ended()
    assert (found.lost, found.rank, found.over) == ({"n3": "is lost"}, None, False)


def told(tmp_path) -> dict[str, str]:
    """The environment that srun was started in."""
    return dict(line.partition("=")[::2] for line in (tmp_path / "seen").read_text().splitlines())


def test_ranks_meet_where_their_nodes_do_and_know_no_others(job, ended, tmp_path):
    job.srun(f"env > {tmp_path}/seen")
    ended()
    seen = told(tmp_path)
    assert (seen["MASTER_ADDR"], seen["MASTER_PORT"]) == ("10.1.0.1", "10001") and "GLOO_SOCKET_IFNAME" not in seen
    by_node = [Start.read({**seen, "RANK": "0"}).network(node, seen) for node in ("n1", "n2", "n4")]
    assert by_node == [
        {"GLOO_SOCKET_IFNAME": "eth0", "NCCL_SOCKET_IFNAME": "=eth0"},
        {"GLOO_SOCKET_IFNAME": "ib0", "NCCL_SOCKET_IFNAME": "=ib0"},
        {},
    ]
    assert not {"SLURM_NODELIST", "SLURM_JOB_NODELIST"} & {*seen} and seen["SLURM_JOB_ID"] == "7"


def test_those_of_one_node_meet_where_no_other_node_can_come(job, ended, tmp_path, monkeypatch):
    """Whatever leads from one node to others."""
    for name, value in {"GLOO_SOCKET_IFNAME": "ib9", "MASTER_ADDR": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    job.srun(f"env > {tmp_path}/seen")
    ended(["n2"], meeting=Meeting("127.0.0.1", 10001, {}))
    seen = told(tmp_path)
    assert (seen["MASTER_ADDR"], seen["GLOO_SOCKET_IFNAME"]) == ("127.0.0.1", "lo")
    assert "SSLRUN_INTERFACES" not in seen
