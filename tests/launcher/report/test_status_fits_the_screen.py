"""The table of `sslrun status` is readable at 80 columns and says more on a wider screen; nothing leaves its line."""

import json
import os
import time
from datetime import datetime

import pytest

from launcher.report import listing
from launcher.report.index import EMPTY, RunRow
from launcher.run.waiting import shown_by
from launcher.slurm import badnodes


@pytest.fixture
def folder(ledgers):
    """A run that is at work, one that failed and one that is done."""
    working = ledgers.create("method=deepercluster", "recipe=tiny")
    ledgers.start(working, nodes="n[1-64]")
    ledgers.end(working, "preempted")
    ledgers.start(working, "preempted", nodes="n[1-64]")
    ledgers.save(working, 40)
    ledgers.progress(working, 42, loss=3.25, images_per_s=12345.6, seconds_left=7200.0)
    ledgers.say(working, "eval", protocol="knn", step=40, scores={"trained": 51.5})
    ledgers.say(working, "restored", step=40, lost_steps=3)
    failed = ledgers.create("method=rotnet", "recipe=tiny")
    ledgers.start(failed, host="n7")
    ledgers.end(failed, "failed", "rank 3 on n7: killed\x1b[2J\nby SIGKILL")
    done = ledgers.create("method=rotnet", "recipe=tiny", "seed=1")
    ledgers.start(done)
    ledgers.save(done, 100)
    ledgers.end(done)
    lock = working.lock()  # as its launcher would
    yield ledgers.folder, working, failed, done
    os.close(lock)


def table(sslrun, folder, columns, *words):
    command = sslrun.where(COLUMNS=str(columns))
    if columns is None:
        del command.environment["COLUMNS"]
    return command("status", f"runs={folder}", *words).out.splitlines()


def test_a_start_that_waits_says_for_whom(sslrun, folder):
    runs, working, *_ = folder
    shown_by(working.path, 2)("waiting: n1, n2 to begin, 3min; registry#image may be fetched")
    titles, row = table(sslrun, runs, 80)[:2]
    assert row[titles.index("waits for") :].startswith("n1, n2 to begin, 3min  ")


@pytest.mark.parametrize("width", [80, 60, 40])
def test_for_whom_a_run_waits_is_cut_and_never_left_out(width):
    told = {"id": "deepercluster-tiny-12345678", "state": "pending", "steps": 18, "method": "deepercluster"}
    awaited = {"id": "rotnet-paper-12345678", "state": "preempted", "step": 12345, "steps": 450360}
    behind = [{"run": awaited["id"], "state": "preempted", "step": 12345}]
    rows = [RunRow({**EMPTY, **awaited}), RunRow({**EMPTY, **told, "behind": behind})]
    titles, cells = listing.that_fit(rows, width)
    assert [title.strip() for title in titles[:4]] == ["run", "state", "step", "waits for"]
    assert cells[1][3].startswith("rotnet") and len(cells[1][3]) >= len("waits for")
    if width == 80:
        assert max(map(len, listing.lines(rows, titles, cells).plain.splitlines())) <= width


def test_80_columns_hold_what_matters_most(sslrun, folder):
    runs, working, failed, done = folder
    lines = table(sslrun, runs, 80)
    rows = lines[:4]
    assert max(map(len, rows)) <= 80
    assert rows[0].split()[:3] == ["run", "state", "step"]
    assert [row.split()[:3] for row in rows[1:]] == [
        [working.id, "running", "42/100"],
        [failed.id, "failed", "0/18"],
        [done.id, "done", "100/100"],
    ]
    assert "2h00" in rows[1] and "51.5 %" in rows[1] and "3.250" in rows[1]
    assert lines[4:] == [
        f"{failed.id}: rank 3 on n7: killed?[2J by SIGKILL",
        f"3 runs: 1 running, 1 failed, 1 done in {runs}",
    ]


def test_a_wider_screen_says_more(sslrun, folder):
    runs, *_ = folder
    wide = table(sslrun, runs, 200)
    assert max(map(len, wide[:4])) <= 200
    for word in ("12,346", "n[1-64]", "40, ", "ago", "preempted 1", "training"):
        assert word in wide[1], word
    assert "saved" in wide[0] and "40, " not in wide[3], "how old the last checkpoint of a finished run is matters not"
    narrow, wider = (table(sslrun, runs, columns)[0].split() for columns in (90, 120))
    assert set(narrow) < set(wider) < set(wide[0].split())


@pytest.mark.parametrize("ended", ["failed", "cancelled", "stopped"])
def test_what_nobody_runs_has_no_time_left(sslrun, ledgers, ended):
    run = ledgers.create("method=rotnet", "recipe=tiny")
    ledgers.start(run)
    ledgers.progress(run, 7, seconds_left=1380.0)
    assert "23min" not in table(sslrun, ledgers.folder, 80)[1]
    lock = run.lock()
    assert "23min" in table(sslrun, ledgers.folder, 80)[1]
    os.close(lock)
    ledgers.end(run, ended)
    head, row = table(sslrun, ledgers.folder, 200)[:2]
    assert ended in row and "left" not in head.split() and "23min" not in row


def test_a_pipe_has_no_width(sslrun, folder):
    runs, *_ = folder
    assert table(sslrun, runs, None)[0].split() == table(sslrun, runs, 1000)[0].split()
    assert "\x1b" not in "".join(table(sslrun, runs, None))


def test_chosen_columns_and_no_others(sslrun, folder):
    runs, working, _, done = folder
    lines = table(sslrun, runs, 80, "--columns", "seed,id,state,loss,evals.knn", "--where", "state!=failed")
    assert [line.split() for line in lines[:3]] == [
        ["seed", "id", "state", "loss", "evals.knn"],
        ["0", working.id, "running", "3.25", "trained", "51.5"],
        ["1", done.id, "done"],
    ]
    assert lines[3] == f"2 of 3 runs: 1 running, 1 done in {runs}"


def test_nodes_that_are_left_out_are_named(sslrun, folder):
    runs, working, *_ = folder
    badnodes.mark(working, ["n7", "n9"], "went down while it ran this", hours=1)
    badnodes.mark(working, ["n8"], "long forgotten", hours=-1)
    lines = [line for line in table(sslrun, runs, 80) if line.startswith("node ")]
    until = time.strftime("%H:%M", time.localtime(json.loads((runs / ".bad_nodes.json").read_text())["n7"]["until"]))
    assert [line.split()[1] for line in lines] == ["n7", "n9"]
    assert all(until in line and "went down while it ran this" in line and working.id in line for line in lines)


def test_a_folder_without_runs(sslrun, tmp_path):
    assert table(sslrun, tmp_path, 80) == [f"no runs in {tmp_path}"]


def test_one_damaged_run_does_not_hide_the_others(sslrun, folder):
    runs, working, failed, done = folder
    (done.path / "spec.json").write_text("{")
    ledger = next((failed.path / "events").glob("*-launcher.jsonl"))
    ledger.unlink()
    ledger.mkdir()
    rows = {row["id"]: row for row in sslrun("status", f"runs={runs}", "--json").json}
    assert {key: row["state"] for key, row in rows.items()} == {
        working.id: "running", failed.id: "failed", done.id: "failed",
    }  # fmt: skip
    assert "spec.json" in rows[done.id]["message"] and "not a plain file" in rows[failed.id]["message"]


def test_a_run_that_is_not_started_again_says_why_below_the_table(sslrun, ledgers):
    """The cluster would not requeue it. One that a person stopped is as it should be."""
    for seed, cause, message in ((0, "preempted", "preempted, state saved; not requeued: no"), (1, "stopped", "saved")):
        run = ledgers.create("method=rotnet", "recipe=tiny", f"seed={seed}")
        ledgers.start(run)
        ledgers.say(run, "end", state="stopped", cause=cause, message=message)
    lines = table(sslrun, ledgers.folder, 80, "--columns", "seed,cause")
    assert [line.split() for line in lines[1:3]] == [["0", "preempted"], ["1", "stopped"]]
    assert [line.partition(": ")[2] for line in lines if "saved" in line] == [
        "preempted, state saved; not requeued: no"
    ]


def test_a_collapse_is_said_below_the_table_until_it_is_over(sslrun, folder, ledgers):
    runs, working, *_ = folder
    ledgers.say(working, "health", step=41, of="outputs", what="collapsed since step 20")
    assert f"{working.id}: collapsed since step 20" in table(sslrun, runs, 80)
    assert "health        collapsed since step 20" in sslrun("show", working.id, f"runs={runs}").out
    ledgers.say(working, "health", step=42, of="outputs", what="")
    assert not any("collapsed" in line for line in table(sslrun, runs, 80))


@pytest.mark.parametrize(
    ("now", "when", "said"),
    [
        ("2026-11-28 09:00", "2026-11-28 23:59", "23:59"),
        ("2026-11-28 23:03", "2026-11-29 00:03", "11-29 00:03"),
        ("2026-12-31 23:30", "2027-01-01 00:30", "01-01 00:30"),
        ("2026-11-28 09:00", "2027-11-28 09:00", "2027-11-28 09:00"),
    ],
)
def test_a_moment_has_its_date_where_that_is_not_todays(monkeypatch, now, when, said):
    clock = type("Clock", (datetime,), {"now": staticmethod(lambda: datetime.fromisoformat(now))})
    monkeypatch.setattr(listing, "datetime", clock)
    assert listing.moment(datetime.fromisoformat(when).timestamp()) == said


def test_what_has_no_steps_counts_none():
    (cell,) = (column.cell for column in listing.columns() if column.title == "step")
    assert (cell({"step": 0, "steps": 0}), cell({"step": 0, "steps": 9})) == ("", "0/9")
