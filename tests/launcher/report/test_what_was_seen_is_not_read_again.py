"""What was seen once is not read again, whatever asks: what a command reads grows with what is new, not with all."""

import itertools

import pytest

from launcher import cli
from launcher.errors import ClusterError
from launcher.plan import plan as planning
from launcher.report import index
from launcher.report.index import RunIndex, place
from launcher.run.ledger import History
from launcher.slurm import queue
from launcher.slurm.commands import SQUEUE, SlurmJob


@pytest.fixture
def read(monkeypatch):
    """`read(question)`: (its answer, of which runs it read the ledger)."""
    seen, plain = [], History.read.__func__
    monkeypatch.setattr(History, "read", classmethod(lambda kind, run: seen.append(run.name) or plain(kind, run)))

    def ask(question):
        seen.clear()
        return question(), sorted({*seen})

    return ask


@pytest.fixture
def slurm(monkeypatch):
    """{job: why it waits, or None where it runs} of a queue, and `slurm.down`."""

    class Jobs(dict):
        down = False

    def jobs():
        if told.down:
            raise ClusterError("squeue: nobody answers")
        known = {id: "PENDING" if why is not None else "RUNNING" for id, why in told.items()}
        plain = dict.fromkeys(SQUEUE, "")
        return {
            id: SlurmJob(**{**plain, "id": id, "raw_id": id, "state": state, "reason": told[id] or ""})
            for id, state in known.items()
        }

    told = Jobs()
    monkeypatch.setattr(queue.commands, "jobs", jobs)
    return told


def rows(folder):
    return {row.facts["id"]: row.facts for row in RunIndex(folder).rows()[0]}


def anew(folder):
    """Without what was remembered, which stays as it is."""
    aside = place(folder).rename(folder / "aside")
    found = rows(folder)
    aside.rename(place(folder))
    return found


def test_what_waits_in_the_queue_is_read_again_when_the_queue_says_something_else(ledgers, slurm, read):
    runs = [ledgers.create("method=rotnet", "recipe=tiny", "cluster=generic", f"seed={seed}") for seed in range(4)]
    for number, run in enumerate(runs):
        ledgers.submit(run, f"7_{number}")
        slurm[f"7_{number}"] = "Priority"
    folder, before = ledgers.folder, rows(ledgers.folder)
    assert {facts["why_pending"] for facts in before.values()} == {"Priority"}
    now, seen = read(lambda: rows(folder))
    assert now == before and len(seen) == 1  # one, to see whether there is anything to ask the queue about

    def changed(run):
        """It alone is read again, and all is as if nothing had ever been remembered."""
        found, seen = read(lambda: rows(folder))
        assert run.id in seen and len(seen) <= 2
        assert {id for id in found if found[id] != before[id]} == {run.id}
        again, seen = read(lambda: rows(folder))
        assert again == found and len(seen) <= 1
        assert {id: {**facts, "lost_job": None} for id, facts in found.items()} == {
            id: {**facts, "lost_job": None} for id, facts in anew(folder).items()
        }
        return found[run.id]

    slurm["7_1"] = "Resources"
    assert changed(runs[1])["why_pending"] == "Resources"
    before = rows(folder)
    del slurm["7_2"]
    lost = changed(runs[2])
    assert (lost["state"], lost["lost_job"]) == ("failed", "7_2")
    before = rows(folder)
    ledgers.submit(runs[3], "9")
    slurm["9"] = "Dependency"
    assert changed(runs[3])["job"] == "9"
    slurm.down = True
    assert rows(folder) == anew(folder)
    slurm.down = False
    before = rows(folder)
    ledgers.start(runs[0], job="7_0")
    slurm["7_0"] = None
    assert changed(runs[0])["state"] == "running"


def test_a_run_that_waits_for_another_is_always_read(ledgers, slurm, read):
    source = ledgers.create("method=rotnet", "recipe=tiny", "cluster=generic")
    ledgers.submit(source, "7")
    waits = ledgers.create("method=deepercluster", "recipe=tiny", "cluster=generic", f"init_from={source.path}")
    ledgers.submit(waits, "8")
    slurm.update({"7": "Priority", "8": "Dependency"})
    for _ in range(2):
        found, seen = read(lambda: rows(ledgers.folder))
        assert found[waits.id]["behind"][0]["state"] == "pending" and waits.id in seen
    ledgers.start(source, job="7")
    ledgers.end(source)
    del slurm["7"]
    assert rows(ledgers.folder)[waits.id]["behind"] == []


@pytest.mark.parametrize("words", [("report", "sweep=nobody/rates", "recipe=demo"), ("sweep", "list", "nobody")])
def test_a_report_and_the_list_of_sweeps_read_nothing_again(finished, read, words, capsys):
    def typed():
        with pytest.raises(SystemExit):
            cli.main([*words, f"runs={finished.folder}", "--config-dir", str(finished.config_dir), "--json"])
        return capsys.readouterr().out

    first, seen = read(typed)
    assert len(seen) == 6
    again, seen = read(typed)
    assert again == first and seen == []
    changed = finished.submit()[0.02, 1]
    finished.ledgers.say(changed, "eval", protocol="knn", step=100, scores={"trained": 99.0})
    _, seen = read(typed)
    assert seen == [changed.id]


def test_the_same_multirun_again_plans_and_reads_nothing(ledgers, slurm_said, read, monkeypatch, capsys, tmp_path):
    import recorded

    from launcher.start.executor import Executor

    monkeypatch.setattr(Executor, "affinity", classmethod(lambda cls: 2))
    slurm_said.cluster()
    slurm_said.says("squeue", "")
    recorded.limited(slurm_said, 9, "AssocMaxSubmitJobLimit")
    small = ("cluster.gpus_per_node=0", "cluster.cpus_per_node=1", "cluster.timeout_min=5", "tasks_per_node=1")
    words = ("--multirun", "method=rotnet", "recipe=tiny", "cluster=generic", *small, f"runs={ledgers.folder}")

    def typed(*more):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, *more])
        assert not ended.value.code
        return capsys.readouterr().err

    assert "submitted 6 runs as job 7\n" in typed("seed=range(0,6)")
    typed("seed=range(0,6)")  # which sees that they are in the queue
    plans, make = [], planning.make
    monkeypatch.setattr(planning, "make", lambda *given: plans.append(given) or make(*given))
    said, seen = read(lambda: typed("seed=range(0,6)"))
    assert "nothing is missing" in said and "6 pending" in said
    assert len(plans) == 1 and len(seen) <= 1  # whether the cluster takes such a run; whether to ask the queue


def test_a_first_look_says_how_far_it_is_and_what_it_read_is_kept(ledgers, read, monkeypatch):
    for seed in range(5):
        run = ledgers.create("method=rotnet", "recipe=tiny", f"seed={seed}")
        ledgers.start(run)
        ledgers.end(run)
    monkeypatch.setattr(index, "PORTION", 2)
    monkeypatch.setattr(index, "shown", every_one)
    told = []

    def show(stage, done, of):
        told.append((stage, done, of))
        if (stage, done) == ("reading runs", 4):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RunIndex(ledgers.folder).rows(show)
    looked, reading = (
        [(done, of) for stage, done, of in told if stage == name] for name in ("looking at runs", "reading runs")
    )
    assert looked == [(number, 5) for number in range(5)] == reading
    found, seen = read(lambda: rows(ledgers.folder))
    assert len(found) == 5 and len(seen) == 1


def every_one(found, stage, of, show):
    for number, each in zip(itertools.count(), found, strict=False):
        show and show(stage, number, of)
        yield each
