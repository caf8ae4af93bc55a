"""`sslrun plan --simulate` says how a run would go, and from where it knows; `status` and `show` say it on the way."""

import json
import os
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.plan import foresight
from launcher.report import ahead, outlook
from launcher.report.index import EMPTY, RunRow
from launcher.run.folder import RunDir
from launcher.spec.runspec import ContinueFrom

PLAN = "plan", "method=swav", "nodes=64", "--simulate"
SIMULATED = (*PLAN, "cluster.preemptible=true", "cluster.grace_s=300")


DOCUMENT = Path(__file__).parents[3] / "docs" / "foresight.md"
COMMANDS = re.search(r"^```sh foresight\n(.*?)^```", DOCUMENT.read_text(), flags=re.M | re.S)[1].splitlines()


@pytest.fixture(scope="module")
def answer(sslrun):
    return json.loads(sslrun(*SIMULATED, "--json").out.splitlines()[-1])


def test_it_answers_for_several_intervals_and_counts_of_nodes(answer):
    cases, simulated = answer["simulation"]["cases"], answer["simulation"]
    assert {case["nodes"] for case in cases} == {32, 64, 128}
    mine = {case["checkpoint_every"]: case for case in cases if case["nodes"] == 64}
    assert len(mine) >= 5 and {answer["checkpoint_every"], simulated["recommended_every"]} <= set(mine)
    assert simulated["recommended_every"] in mine and simulated["young_daly_every"] in mine
    held = {every: case["node_hours"]["mean"] for every, case in mine.items()}
    assert held[simulated["recommended_every"]] == min(held.values())
    for case in cases:
        finish = case["finish_hours"]
        assert 0.9 * answer["hours"] * 64 / case["nodes"] < finish["p10"] <= finish["p50"] <= finish["p90"]
        assert case["gpu_hours"]["mean"] == pytest.approx(8 * case["node_hours"]["mean"], rel=1e-3)
        assert 0 < case["goodput"] <= 1 and case["written_gb"]["mean"] > 0
        assert case["restarts"]["mean"] == pytest.approx(sum(case["restarts_by_cause"].values()), abs=0.01)


def test_the_same_seed_is_the_same_answer(sslrun, answer):
    def again(*words):
        return json.loads(sslrun(*SIMULATED, *words, "--json").out.splitlines()[-1])["simulation"]

    assert again() == answer["simulation"] == again("--seed=0")
    assert again("--seed=1")["cases"] != answer["simulation"]["cases"]


@pytest.mark.parametrize(
    "words",
    [
        SIMULATED,
        ("plan", "method=rotnet", "recipe=tiny", "--simulate"),
        (*PLAN, "cluster.interruptions_per_node_day=0"),
        (*PLAN, "cluster.interruptions_per_node_day=0", "method.epochs=10000000"),  # ten years of it
    ],
    ids=["preempted", "here", "undisturbed", "long"],
)
def test_it_fits_80_columns(sslrun, words):
    said = sslrun(*words).out.splitlines()
    assert len(said) > 8 and not [line for line in said if len(line) > 80]


def test_a_sentence_says_which_interval_is_best_and_what_young_and_daly_say(sslrun, answer):
    said = " ".join(sslrun(*SIMULATED).out.split())
    simulated = answer["simulation"]
    assert f"On 64 nodes a save every {simulated['recommended_every']:,} steps costs least of these" in said
    assert f"Young and Daly: every {simulated['young_daly_every']:,}," in said
    assert "weather: cluster_configs: generic" in said
    assert "Nothing costs steps" in " ".join(sslrun(*PLAN, "cluster.interruptions_per_node_day=0").out.split())


def test_what_runs_here_waits_in_no_queue(sslrun):
    said = sslrun("plan", "method=rotnet", "recipe=tiny", "--simulate").out
    assert "queue       none\n" in said and "On 1 node a save" in said


def test_large_numbers_stay_within_their_columns():
    assert [outlook._ends(86400 * days) for days in (999.9, 1234.5, 9999)] == ["999.9d", "1,234d", "9,999d"]
    assert [outlook._count(number) for number in (999_999, 8_372_705, 1e9)] == ["999,999", "8.4M", "1,000.0M"]


def test_the_page_has_the_picture(sslrun, tmp_path, answer):
    page = tmp_path / "page.html"
    said = json.loads(sslrun(*SIMULATED, f"--out={page}", "--json").out.splitlines()[-1])
    text = page.read_text()
    assert said["simulation"]["page"] == str(page)
    assert text.count('<path class="ours thin"') == 2 * len(answer["simulation"]["cases"])  # wide and narrow
    assert f"64 x {answer['simulation']['recommended_every']:,}" in text and "<script" not in text


def test_the_page_says_all_of_the_line_that_makes_it_again(sslrun, tmp_path):
    line = "plan", "method=rotnet", "recipe=tiny", "--simulate", "--like=config", "--seed=7"
    sslrun(*line, "cluster.environment.KEY=hush", f"--out={tmp_path / 'page.html'}")
    said = (tmp_path / "page.html").read_text()
    assert "sslrun plan method=rotnet recipe=tiny" in said and " --simulate --like=config --seed=7" in said
    assert "cluster.environment.KEY=" in said and "hush" not in said


def weathered(ledgers, *overrides):
    """A run of a cluster that was preempted twice, an hour each, with ten minutes in the queue."""
    run = ledgers.create("method=rotnet", "recipe=tiny", "cluster=h100", *overrides)
    for generation in range(1, 4):
        (run.path / "events").mkdir(exist_ok=True)
        begun = 1.7e9 + 4200 * generation
        rows = [{"event": "start", "time": begun, "cause": "preempted", "job": "7", "nodes": "n1", "world_size": 8}]
        rows.append({"event": "restored", "time": begun + 40, "step": 10 * generation, "lost_steps": 0})
        rows.append({"event": "end", "time": begun + 3600, "state": "preempted", "cause": "preempted", "message": ""})
        rows[-1]["requeued"] = True
        lines = (
            {"generation": generation, "writer": "batch", "host": "n1", "number": number, **row}
            for number, row in enumerate(rows)
        )
        (run.path / "events" / f"{generation:04d}-batch.jsonl").write_text(
            "".join(json.dumps(each) + "\n" for each in lines)
        )
    return run


def test_ledgers_of_the_cluster_come_before_its_config(sslrun, ledgers):
    weathered(ledgers)
    runs, plan = f"runs={ledgers.folder}", ("plan", "method=rotnet", "recipe=tiny", "nodes=1", "--simulate", "--json")

    def source(*words):
        return json.loads(sslrun(*plan, runs, *words).out.splitlines()[-1])["simulation"]

    measured = source("cluster=h100")
    assert "the ledgers of 1 runs" in measured["source"] and "preempted 3" in measured["assumed"]["ledgers"]
    assert source("cluster=a100_80gb")["source"] == "cluster_configs: a100_80gb"
    assert source("cluster=h100", "--like=config")["source"] == "cluster_configs: h100"
    assert "1 runs" in source("cluster=a100_80gb", f"--like={ledgers.folder}")["source"]


@pytest.mark.parametrize("line", COMMANDS)
def test_the_page_can_be_typed(sslrun, tmp_path, line):
    name, *words = shlex.split(line, comments=True)
    said = sslrun(*words, "--like=config", cwd=tmp_path).out
    assert name == "sslrun" and ("simulation" in json.loads(said) if "--json" in words else "as it might go" in said)


def test_of_a_range_the_most_that_fits_is_asked_for(sslrun):
    words = "plan", "method=deepercluster", "nodes=3-10", "--simulate", "--like=config", "--json"
    found = json.loads(sslrun(*words).out.splitlines()[-1])
    counts = {case["nodes"] for case in found["simulation"]["cases"]}
    assert max(counts) == found["nodes"] <= 10 and counts <= {each["nodes"] for each in found["layouts"]}


REFUSED = {
    ("--seed=1",): "--seed=1: it is of --simulate",
    ("--like=runs",): "--like=runs: it is of --simulate",
    ("--out=page.html",): "--out=page.html: it is of --simulate",
    ("--simulate", "--like=/nowhere"): "--like=/nowhere: no run in it has started on a cluster",
    ("--simulate", "--like="): "--like=: it is empty",
    ("--simulate", "--seed=-1"): "--seed=-1: it is negative",
    ("--simulate", "--cfg"): "--cfg: it simulates nothing",
    ("--simulate", "--out=/proc/no/page.html"): "--out=/proc/no/page.html: cannot write there",
    ("--simulate", "cluster.queue_minutes=[5]"): "cluster.queue_minutes=[5",
    ("--simulate", "cluster.queue_minutes=[50,5]"): "cluster.queue_minutes=[50",
    ("--simulate", "cluster.preemptions_per_node_day=7"): "cluster.preemptions_per_node_day=7",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_cannot_be_is_one_line(sslrun, words):
    done = sslrun("plan", "method=rotnet", "nodes=2", *words, code=2)
    assert REFUSED[words] in done.err and len(done.err.splitlines()) == 1


def test_a_sweep_is_not_simulated(sslrun):
    done = sslrun("plan", "sweep=smog/groups", "nodes=8", "--simulate", code=2)
    assert "--simulate: a sweep is several runs" in done.err


def under_way(run, **facts):
    now = {"state": "running", "job": "7", "step": 30, "steps": 100, "seconds_left": 7000.0, "world_size": 8}
    now |= {"granted_nodes": 1, "checkpoint_step": 30, "started": 1.7e9, "path": str(run.path), "id": run.id}
    return {**EMPTY, **now, **facts}


def test_a_run_under_way_is_foreseen_by_what_befell_it(ledgers):
    run = weathered(ledgers)
    row, *others = (RunRow(under_way(run, **facts)) for facts in ({}, {"state": "done"}, {"job": None}))
    ahead.add([row], {})
    ahead.add(others, {})
    foreseen = row.facts["foreseen"]
    assert [each.facts["foreseen"] for each in others] == [None, None]  # it is over; nobody preempts what runs here
    assert 7000 <= foreseen["p10"] < foreseen["p50"] < foreseen["p90"]
    assert foreseen["p50"] < 14_000  # about two preemptions, of ten minutes each
    assert ahead.of_run(RunDir(run.path), under_way(run)) == foreseen
    assert ahead.of_run(RunDir(run.path), under_way(run, suspended="2026-01-01T00:00:00")) is None
    assert ahead.cell(foreseen).count("-") == 1 and ahead.said(foreseen).startswith("in ")
    assert ahead.cell(None) == ahead.said(None) == ""


def test_what_a_run_goes_on_from_is_saved(ledgers, monkeypatch):
    """It is the last checkpoint of another run, before it has one of its own."""
    run = weathered(ledgers)
    spec = replace(run.spec(), continue_from=ContinueFrom("checkpoints/step_000000020", "d", "first", 20, 1))
    monkeypatch.setattr(RunDir, "spec", lambda _: spec)
    asked, simulate = [], foresight.simulate
    monkeypatch.setattr(
        foresight, "simulate", lambda some, *more, **how: asked.extend(some) or simulate(some, *more, **how)
    )
    for own in (None, 25):
        ahead.of_run(run, under_way(run, checkpoint_step=own))
    assert [(journey.done, journey.saved) for journey in asked] == [(30, 20), (30, 25)]


def test_what_was_foreseen_a_moment_ago_is_not_drawn_again(ledgers, monkeypatch):
    run, said = weathered(ledgers), {}
    first, again, later = (RunRow(under_way(run)) for _ in range(3))
    clock = iter([100.0, 130.0, 200.0])
    monkeypatch.setattr(ahead.time, "monotonic", lambda: next(clock))
    ahead.add([first], said)
    with monkeypatch.context() as patched:
        patched.setattr(ahead, "_forecast", None)  # nobody asks for it
        ahead.add([again], said)
    ahead.add([later], said)
    assert again.facts["foreseen"] == {level: seconds - 30.0 for level, seconds in first.facts["foreseen"].items()}
    assert later.facts["foreseen"] == first.facts["foreseen"]


def test_a_damaged_run_is_left_out_of_what_is_foreseen(ledgers):
    run = weathered(ledgers)
    (run.path / "spec.json").write_text("{}")
    row = RunRow(under_way(run))
    ahead.add([row], {})
    assert row.facts["foreseen"] is None


def test_status_and_show_say_when_it_will_be_done(sslrun, ledgers):
    run = weathered(ledgers)
    ledgers.start(run, "preempted", job="7", nodes="n1")
    ledgers.progress(run, 31, seconds_left=7000.0)
    lock = run.lock()
    try:
        runs = f"runs={ledgers.folder}"
        (row,) = json.loads(sslrun("status", runs, "--json").out.splitlines()[-1])
        assert row["foreseen"]["p10"] > 6000
        assert "done in" in sslrun.where(COLUMNS="200")("status", runs).out
        shown = json.loads(sslrun("show", run.id, runs, "--json").out.splitlines()[-1])
        assert shown["foreseen"]["p50"] > 6000
        assert "8 of 10" in sslrun("show", run.id, runs).out
    finally:
        os.close(lock)
