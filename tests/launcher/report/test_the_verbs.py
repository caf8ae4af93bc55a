"""`sslrun report` and `sslrun sweep list`, as typed."""

import json
import sys
from types import SimpleNamespace

import pytest

from launcher import cli
from launcher.run.ledger import Ledger
from launcher.slurm import queue as slurm_queue


@pytest.fixture
def typed(tabled, capsys, monkeypatch):
    """`typed("report", ...)`: (exit code, stdout, stderr), with the sweeps of `tabled` and in its folder."""
    monkeypatch.setenv("SSLRUN_CONFIG_DIR", str(tabled.config_dir))
    monkeypatch.delenv("COLUMNS", raising=False)  # tests that run side by side are given a width

    def run(*words: str, code: int = 0) -> tuple[str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([*words, f"runs={tabled.folder}"])
        said = capsys.readouterr()
        assert (end.value.code or 0) == code, said
        return said.out, said.err

    return run


def test_the_json_of_a_sweep(finished, typed):
    out, err = typed("report", "sweep=nobody/rates", "recipe=demo", "--json")
    told = json.loads(out.splitlines()[-1])
    assert [{key: p[key] for key in ("value", "paper", "mean", "state")} for p in told["points"]] == [
        {"value": 0.01, "paper": 50.0, "mean": 40.25, "state": "done"},
        {"value": 0.02, "paper": 52.5, "mean": 45.25, "state": "done"},
        {"value": 0.04, "paper": 54.0, "mean": 50.25, "state": "done"},
        {"value": "another method", "paper": 60.0, "mean": None, "state": "not here yet"},
    ]
    assert told["points"][0]["std"] == pytest.approx(0.5**0.5 / 2)
    assert told["spearman"] == 1.0
    assert told["page"] in err


def test_the_table_and_the_page_say_the_same(finished, typed):
    out, err = typed("report", "sweep=nobody/rates", "recipe=demo")
    page = (finished.folder / "reports" / "nobody-rates-demo.html").read_text()
    assert str(finished.folder / "reports" / "nobody-rates-demo.html") in err
    for said in ("40.2 ± 0.35", "−9.75", "not here yet: needs nobodys", "Spearman", "A higher rate is better."):
        assert said in out
        assert said.replace("'", "&#39;") in page
    assert "different measures" in out


def test_a_page_links_to_its_runs_so_that_all_can_be_moved_together(finished, typed):
    typed("report", "sweep=nobody/rates", "recipe=demo")
    page = finished.folder / "reports" / "nobody-rates-demo.html"
    first = finished.table().rows[0].runs[0].id
    assert f'href="../{first}"' in page.read_text()
    typed("report", first)
    typed("report", "sweep=nobody/rates", "recipe=demo")
    assert f'href="{first}.html"' in page.read_text()


def test_markdown_is_a_section_that_names_its_command(finished, typed):
    out, _ = typed("report", "sweep=nobody/rates", "recipe=demo", "--markdown")
    assert out.startswith("## learning rate (Nobody (1999), Table 1)\n")
    assert "made by: sslrun report sweep=nobody/rates recipe=demo --markdown" in out
    assert "| 0.03 (for 0.02) | 52.5 | 45.2 ± 0.35 | −7.25 | done | 100 |" in out
    assert str(finished.folder) not in out


def test_the_life_of_a_run(tabled, typed):
    ledgers, run = tabled.ledgers, tabled.submit()[0.01, 0]
    ledgers.start(run)
    ledgers.end(run, "preempted")
    ledgers.start(run, "preempted", world_size=4)
    ledgers.say(run, "restored", step=40, lost_steps=3)
    ledgers.save(run, 100)
    ledgers.say(run, "eval", protocol="knn", step=100, scores={"trained": 41.5})
    ledgers.end(run)
    out, _ = typed("report", run.id, "--json")
    told = json.loads(out.splitlines()[-1])
    starts = [{key: start[key] for key in ("cause", "first", "last", "lost", "ended")} for start in told["starts"]]
    assert starts == [
        {"cause": "submitted", "first": 0, "last": 0, "lost": 0, "ended": "preempted"},
        {"cause": "preempted", "first": 40, "last": 100, "lost": 3, "ended": "done"},
    ]
    assert (told["state"], told["lost_steps"], told["world_size"]) == ("done", 3, 4)
    assert [start["ranks"] for start in told["starts"]] == [1, 4]  # as many as a range of nodes gave each
    out, _ = typed("report", run.id)
    assert "41.50" in out and "preempted" in out


def test_what_a_run_lost_and_where_it_went_on_is_shown(ledgers, typed):
    """One node of a range is lost, the run goes on in its job on the spare, and later, elsewhere, on fewer nodes."""
    words = "recipe=tiny", "nodes=2-4", "cluster=generic", "cluster.spare_nodes=1"
    run = ledgers.create("method=rotnet", *words)
    per_node = run.spec().tasks_per_node
    for number, ranks in ((1, 4 * per_node), (2, 4 * per_node), (3, 2 * per_node)):
        pen = Ledger(run.path, number, "batch")
        spares = {"spares": 1} if number == 1 else {}
        pen.write("start", cause="node_failure", job="7", nodes="n[1-4]", world_size=ranks, **spares)
        if number == 1:
            pen.write("left_out", node="n4", why="is lost")
            pen.write("end", state="preempted", cause="node_failure", message="", node="n4", in_place=True)
        if number == 2:
            pen.write("restored", step=40)
            why = "too few of its nodes are left"
            pen.write("end", state="preempted", cause="node_failure", message="", requeued=True, why=why)
    pen.write("end", state="failed", cause="crash", message="out of memory")
    shown, _ = typed("show", run.id)
    assert f"where         cluster generic, nodes 2-4, spare_nodes 1, tasks_per_node {per_node}\n" in shown
    assert "granted_nodes 2 of 2-4\n" in shown and "in_place      1\n" in shown
    assert "left_out      node n4, why is lost, start 1\n" in shown
    assert "cause node_failure, where same job, node n4, lost_steps 0" in shown
    assert "cause node_failure, where queue, why too few of its nodes are left, lost_steps 0" in shown
    assert "spares        1 restart on one, going on 0 s after the end; idle for 0.00 node-hours\n" in shown
    answer = json.loads(typed("show", run.id, "--json")[0])
    assert (answer["granted_nodes"], answer["asked_nodes"], answer["in_place"]) == (2, "2-4", 1)
    assert (answer["where"]["nodes"], answer["where"]["least_nodes"]) == (4, 2)
    assert answer["left_out"] == [{"node": "n4", "why": "is lost", "start": 1}] and answer["spares"]["restarts"] == 1
    (row,) = typed("status")[0].splitlines()[1:2]
    assert "node_failure 2; 1 in place" in row and "n[1-4], 2 of 2-4" in row
    report, _ = typed("report", run.id)
    page = (ledgers.folder / "reports" / f"{run.id}.html").read_text()
    for said in (report, page):
        assert "n4 is lost: left out since start 1." in said and "The latest start has 2 of 2-4 nodes." in said
        assert "Start 2 could not go on in its job: too few of its nodes are left." in said
    assert page.count("<small>same job</small>") == page.count("<small>queue</small>") == 1


def test_scores_of_several_settings_and_pictures_of_evaluations_are_shown(tabled, typed):
    run = tabled.submit()[0.01, 0]
    tabled.done(run, 41.5)
    scores = {"top1": 50.0, "top1_by_rate": {"0.1": 48.0, "0.3": 50.0}, "by": "hand", "chosen": True}
    tabled.ledgers.say(run, "eval", protocol="linear", step=100, scores=scores)
    folder = run.path / "evals" / "attention-1"
    (folder / "attention").mkdir(parents=True)
    (folder / "spec.json").write_text("{}")
    for number in range(10):
        (folder / "attention" / f"{number:04d}.png").write_bytes(b"\x89PNG\r\n\x1a\na picture")
    shown, _ = typed("show", run.id)
    assert "linear: top1 50.0, by hand, chosen True\n" in shown and "top1_by_rate" not in shown
    out, _ = typed("report", run.id)
    assert "top1 by rate 0.3" in out and "hand" not in out and "chosen" not in out
    page = (tabled.folder / "reports" / f"{run.id}.html").read_text()
    assert page.count("<img") == 6
    assert "evals/attention-1/attention/0005.png, and 4 more beside it" in page


def test_a_table_is_shown_where_no_page_can_be_left(finished, typed):
    (finished.folder / "reports").write_text("in the way")
    out, err = typed("report", "sweep=nobody/rates", "recipe=demo")
    assert "40.2 ± 0.35" in out
    assert err.startswith("no page: ") and "cannot write there" in err


def test_a_report_makes_no_folder_of_runs(tabled, typed):
    out, err = typed("report", "sweep=nobody/rates", "recipe=demo", "--json")
    assert json.loads(out.splitlines()[-1])["page"] is None
    assert err == f"no page: there is no folder {tabled.folder}\n"
    assert not tabled.folder.exists()


def test_links_lead_to_folders_of_any_name(finished, typed):
    run = finished.submit()[0.01, 0].path
    run.rename(run.with_name("100% of it?"))
    typed("report", "sweep=nobody/rates", "recipe=demo")
    assert 'href="../100%25%20of%20it%3F"' in (finished.folder / "reports" / "nobody-rates-demo.html").read_text()


def test_the_plan_of_a_sweep_is_a_line_a_run(tabled, typed):
    out, _ = typed("plan", "sweep=nobody/rates", "recipe=demo", "seed=3")
    lines = out.splitlines()
    assert [line.partition(":")[0] for line in lines[:3]] == [f"{at}, seed 3" for at in (0.01, 0.03, 0.04)]
    assert all(" ranks, " in line or " rank, " in line for line in lines[:3])
    assert lines[3:] == ["another method: not here yet: it needs nobodys", "nobody/rates, recipe=demo: 3 runs"]
    out, _ = typed("plan", "sweep=nobody/rates", "data.path=/nowhere", "nodes=2", "--json")
    told = json.loads(out)
    assert [run["world_size"] for run in told["runs"]] == [16] * 3
    assert told["not_here_yet"] == [{"value": "another method", "series": "", "lacks": ["nobodys"]}]


def test_what_nobody_timed_is_reckoned_at_the_lowest_published_rate_and_said(tabled, typed):
    wanted = "plan", "sweep=nobody/rates", "data.path=/nowhere", "nodes=2"
    runs = json.loads(typed(*wanted, "--json")[0])["runs"]
    for run in runs:
        assert run["hours_assumed"] and run["gpu_hours_reckoned"] > run["gpu_hours"]
        assert run["gpu_hours_reckoned"] == pytest.approx(16 * run["hours_published"][1], rel=1e-3)
    *lines, _, last = typed(*wanted)[0].splitlines()
    said = [line for line in lines if "assumed: the lowest published rate of such networks" in line]
    assert len(said) == 3 and f"{runs[0]['gpu_hours_reckoned']:,.1f} GPU-hours" in said[0]
    total = sum(run["gpu_hours_reckoned"] for run in runs)
    assert last == f"nobody/rates, recipe=paper: 3 runs, {total:,.0f} GPU-hours, those of 3 runs assumed"


def test_a_plan_says_what_is_waited_for_or_why_that_would_be_in_vain(tabled, typed, monkeypatch):
    source, ledgers = tabled.ledgers.create("method=rotnet", "recipe=demo", "cluster=generic"), tabled.ledgers
    ledgers.submit(source, "7")
    queue = {"7": SimpleNamespace(state="PENDING", reason="", suspended=None)}
    monkeypatch.setattr(slurm_queue.commands, "jobs", lambda: queue)
    words = ("recipe=demo", "cluster=generic", f"init_from={source.path}")
    one, all_of_it = ("plan", "method=deepercluster", *words), ("plan", "sweep=nobody/rates", "seed=3", *words)
    options = ["--dependency=afterok:7", "--kill-on-invalid-dep=no"]
    for line in (one, all_of_it):
        told = json.loads(typed(*line, "--json")[0])
        for each in told.get("runs", [told]):
            assert (each["dependency"], each["refused"]) == (options, ""), each
    assert f"It waits for another run: sbatch is given {' '.join(options)}\n" in typed(*one)[0]
    assert f"3 of 3 runs wait for another: sbatch is given {' '.join(options)}\n" in typed(*all_of_it)[0]
    queue.clear()
    for line in (one, all_of_it):
        told = json.loads(typed(*line, "--json")[0])
        for each in told.get("runs", [told]):
            assert each["dependency"] == [] and "it is failed, and nobody runs it; " in each["refused"], each
    assert "It would not be submitted now: init_from=" in typed(*one)[0]
    assert typed(*all_of_it)[0].count("3 of 3 runs would not be submitted now: init_from=") == 1


def test_a_plan_says_what_srun_is_given(tabled, typed):
    words = ("plan", "method=rotnet", "recipe=demo", "cluster=generic")
    given = (*words, "cluster.srun.mpi=none", "cluster.srun.prolog='/a [b]'")
    told = json.loads(typed(*given, "--json")[0])
    assert (told["srun"], told["dependency"], told["refused"]) == (["--mpi=none", "--prolog=/a [b]"], [], "")
    assert "Its steps are started with srun --mpi=none '--prolog=/a [b]'\n" in typed(*given)[0]
    assert json.loads(typed(*words, "--json")[0])["srun"] == [] and "with srun" not in typed(*words)[0]


def test_a_plan_says_of_what_nodes_have_a_copy_or_that_it_cannot_be_packed(tabled, typed, tmp_path):
    words = ("plan", "method=rotnet", "recipe=demo", "cluster=generic")
    assert json.loads(typed(*words, "--json")[0])["packed"] == ""
    words += ("cluster.local_env=/scratch",)
    told = json.loads(typed(*words, "--json")[0])
    assert (told["packed"], told["refused"]) == (sys.prefix, "")
    assert f"Its ranks start from copies, on the nodes, of {sys.prefix}\n" in typed(*words)[0]
    out, _ = typed(*words, f"cluster.python={tmp_path}/none")
    assert f"It would not be submitted now: cluster.python={tmp_path}/none: it does not say where its" in out
    assert "copies" not in out


def test_a_plan_of_a_sweep_says_what_srun_is_given(tabled, typed):
    out, _ = typed("plan", "sweep=nobody/rates", "recipe=demo", "seed=3", "cluster=generic", "cluster.srun.mpi=none")
    assert out.count("3 of 3 runs start their steps with srun --mpi=none\n") == 1


def test_a_run_that_never_started_has_a_page(tabled, typed):
    run = tabled.submit()[0.01, 0]
    typed("report", run.id, "--out", str(tabled.folder / "here.html"))
    assert "It has not been started." in (tabled.folder / "here.html").read_text()


def test_what_has_been_run_is_listed(finished, typed):
    out, _ = typed("sweep", "list", "nobody", "--json")
    (told,) = json.loads(out)
    assert (told["name"], told["points"]) == ("nobody/rates", 4)
    assert told["scales"]["demo"] == {"metric": "knn.trained", "minutes": 2.0, "ready": 3, "here": {"done": 6}}
    assert told["scales"]["paper"]["here"] == {}
    run = finished.submit()[0.01, 0]
    ledger = next((run.path / "events").glob("*.jsonl"))
    ledger.unlink()
    ledger.mkdir()
    out, _ = typed("sweep", "list", "nobody", "--json")
    assert json.loads(out)[0]["scales"]["demo"]["here"] == {"damaged": 1, "done": 5}
    out, _ = typed("sweep", "list")
    assert "nobody/rates" in out and "swav/prototypes" in out and "1 point not here yet" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "sweep=nobody/rats"], "sweep=nobody/rats: there is no such name; did you mean nobody/rates?"),
        (["report", "sweep=nobody/rates", "recipe=dem"], "recipe=dem: there is no such name; did you mean demo?"),
        (
            ["report", "sweep=nobody/rates", "recipe=demo", "method.lr=1"],
            "method.lr=1: this is what nobody/rates varies",
        ),
        (["report", "sweep=nobody/rates", "seed=abc"], "seed=abc: it is no seed; give a whole number, 0 or more"),
        (["report", "nothing"], "RUN=nothing: there is no such run"),
        (["report", "a", "b"], "RUN=a b: that is no one run; give a run, or sweep=<paper>/<table>"),
        (["report", "method.lr=1"], "RUN=method.lr=1: that is no one run"),
        (["report", "sweep=nobody/rates", "--json", "--markdown"], "--markdown=--json: both say how to answer"),
        (["report", "sweep=nobody/rates", "--out", "/proc/x.html"], "--out=/proc/x.html: cannot write there"),
        (["sweep", "list", "nobdy"], "PAPER=nobdy: no sweep is of it; known: "),
        (["sweep=nobody/rates", "recipe=demo"], "sweep=nobody/rates: this is several runs; add --multirun"),
        (["-m", "sweep=nobody/rates", "method.lr=1"], "method.lr=1: this is what nobody/rates varies; leave it out"),
        (["-m", "sweep=nobody/rates", "method=rotnet"], "method=rotnet: the sweep is of rotnet; leave it out"),
        (["-m", "sweep=nobody/rates", "method.epochs=1,2"], "method.epochs=1,2: only seed may have several values"),
        (["-m", "sweep=nobody/rates", "method.epoch=1"], "method.epoch=1: there is no such key; did you mean"),
    ],
)
def test_bad_input_is_one_line(typed, words, said):
    _, err = typed(*words, code=2)
    assert err.startswith(f"sslrun: {said}")
    assert len(err.splitlines()) == 1
