"""A run is found by what a line says of it, from wherever that is typed; and what does not help is not advised."""

import os
import shlex
from argparse import ArgumentParser

import pytest
import recorded

from launcher.errors import InputError
from launcher.run import folder
from launcher.run.files import write_json
from launcher.run.waiting import shown_by
from launcher.verbs import launch, logs, show


@pytest.fixture
def typed(capsys):
    """`typed(verb, word, ...)`: what it printed, inside this process."""

    def run(verb, *words):
        parser = ArgumentParser()
        verb.add_arguments(parser)
        verb.run(parser.parse_args([str(word) for word in words]))
        return capsys.readouterr().out

    return run


def refused(verb, *words):
    parser = ArgumentParser()
    verb.add_arguments(parser)
    with pytest.raises(InputError) as refusal:
        verb.run(parser.parse_args([str(word) for word in words]))
    return str(refusal.value)


def judged(run, name="knn-1"):
    path = run.path / "evals" / name
    path.mkdir(parents=True)
    write_json(path / "eval.json", {"protocol": "knn", "settings": {}, "step": None, "digest": None, "after": True})
    (path / "events").mkdir()
    for file in ("spec.json", "plan.json"):
        (path / file).write_bytes((run.path / file).read_bytes())
    return folder.RunDir(path)


# -- which run -------------------------------------------------------------------------------------------------------


def test_a_run_is_named_so_that_it_is_found_from_here(fresh, monkeypatch, tmp_path):
    there = tmp_path / "else where"
    there.mkdir()
    for here, name in ((tmp_path, fresh.id), (there, str(fresh.path))):
        monkeypatch.chdir(here)
        assert fresh.typed == shlex.quote(name)
        assert folder.find(name, folder.paths.absolute("runs")).path == fresh.path
    monkeypatch.chdir(there)
    lock = fresh.lock()
    with pytest.raises(InputError, match=rf"`sslrun cancel {fresh.path}` stops it$"):
        fresh.refuse_second_writer()
    os.close(lock)


def test_the_beginning_of_a_run_finds_its_evaluations(fresh):
    evaluation = judged(fresh)
    for name in (evaluation.id, f"{fresh.id[:8]}/evals/knn-1"):
        assert folder.find(name, fresh.runs).path == evaluation.path
    assert folder.find(fresh.id[:8], fresh.runs).path == fresh.path
    with pytest.raises(InputError, match=rf"there is no such run in .*; runs there: {evaluation.id}$"):
        folder.find(f"{fresh.id[:8]}/evals/linear-1", fresh.runs)


def test_of_several_that_begin_so_these_are_listed_and_no_others(ledgers, fresh):
    others = [ledgers.create("method=rotnet", "recipe=tiny", f"seed={seed}").id for seed in (1, 2)]
    ledgers.create("method=deepercluster", "recipe=tiny")
    with pytest.raises(InputError) as refusal:
        folder.find("rotnet-tiny", fresh.runs)
    assert refusal.value.reason.startswith("several runs begin like this")
    assert refusal.value.fix == f"they are {', '.join(sorted([fresh.id, *others]))}"


# -- logs and show ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [[], ["--all"]])
def test_where_there_is_no_log_yet_the_line_says_for_what_the_run_waits(fresh, ledgers, slurm_said, every):
    ledgers.submit(fresh, "2")
    slurm_said.says("squeue", recorded.table(recorded.JOBS))
    line = refused(logs, fresh.path, *every)
    begin = "--all: " if every else "--rank=0: "
    assert line.startswith(f"{begin}{fresh.id} is pending and has no log (it waits for you: it is held (JobHeldUser); ")
    assert line.endswith(f"`sslrun logs {fresh.path} -f` shows what comes") and "use --all" not in line


def test_use_all_is_said_where_it_shows_something(fresh, ledgers):
    ledgers.start(fresh)
    ledgers.end(fresh, "failed", "rank 1: killed")
    assert refused(logs, fresh.path, "--all").endswith(
        f"is failed and has no log (rank 1: killed); `sslrun resume {fresh.path}` starts it"
    )
    (fresh.path / "logs" / "rank0.log").write_text("words\n")
    assert refused(logs, fresh.path, "--rank=1").endswith("and has no log of it (rank 1: killed); use --all")


def test_show_says_for_whom_a_start_waits_and_not_that_it_waits_for_nobody(fresh, ledgers, typed):
    ledgers.start(fresh)
    lock = fresh.lock()
    for stage, said in (("waiting: n1, n2 to begin, 10s", "waits_for     n1, n2 to begin, 10s\n"), ("training", "")):
        shown_by(fresh.path, 1)(stage)
        text = typed(show, fresh.path)
        assert said in text and "nobody" not in text and ("stage         training\n" in text) == (not said)
    os.close(lock)


def test_a_job_that_is_at_its_setup_says_so(ledgers, slurm_said):
    run = ledgers.create("method=rotnet", "recipe=tiny", "cluster=generic", "cluster.setup=['sleep 300']")
    ledgers.submit(run, "4")
    slurm_said.says("squeue", recorded.table(recorded.JOBS))
    assert run.doing("running", run.history()) == {"stage": "setting up"}
    assert f"{run.id} is running and has no log (setting up); " in refused(logs, run.path)
    ledgers.start(run, job="4")
    assert run.doing("running", run.history()) == {"stage": "starting"}


# -- launches --------------------------------------------------------------------------------------------------------


def test_one_run_is_not_waited_for():
    assert "--wait: this is one run; " in refused(launch, "method=rotnet", "recipe=tiny", "--wait")
