"""What a run's history answers."""

import json
import math
import os
import resource
from pathlib import Path

import pytest

from launcher.run.files import NotOurs
from launcher.run.ledger import History, Ledger


def row(event: str, generation: int, **fields) -> dict:
    return {"event": event, "generation": generation, **fields}


def test_the_job_is_the_one_that_was_given_last():
    given, start = row("submitted", 1, job="7"), row("start", 1, job="7")
    assert History().job is None
    assert History([given, row("end", 1, job="9")]).job == "7"
    assert History([given, start, row("submitted", 2, job="8")]).job == "8"
    assert History([given, row("start", 2)]).job is None  # since then somebody ran it here


def test_an_intent_is_open_until_somebody_writes_down_what_came_of_it():
    intent, again = row("intent", 1, token="a"), row("intent", 2, token="b")
    assert not History().open_intent
    assert History([intent]).open_intent is intent
    assert History([intent, row("code", 1)]).open_intent is intent
    for event in (row("submitted", 1, job="7"), row("withdrawn", 1), row("start", 1)):
        assert not History([intent, event]).open_intent
        assert History([intent, event, again]).open_intent is again


def test_the_first_and_the_last_of_several_names_and_none():
    history = History([row("start", 1), row("end", 1), row("start", 2), row("error", 2)])
    assert (history.first("start", "end"), history.last("start", "end")) == (history[0], history[2])
    assert (history.last("finished"), History().first("start")) == ({}, {})
    assert (history.generation, History().generation) == (2, 0)


def test_a_generation_and_what_lies_before_and_behind_it():
    history = History([row("start", 1), row("start", 2), row("end", 2), row("submitted", 3, job="7")])
    assert [history.before(2), history.of(2), history.after(2)] == [history[:1], history[1:3], history[3:]]
    assert history.after(2).submission("7") is history[3]
    assert not history.submission("8") and not history.submission(None)


def test_an_end_that_somebody_else_wrote_down_later_has_no_time_of_its_own():
    history = History([row("end", 1, writer="afterwards"), row("end", 2, writer="batch")])
    assert list(history.ends) == [2]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Of a run that nobody wrote about yet."""
    (tmp_path / "events").mkdir()
    return tmp_path


def names(folder: Path) -> list[str]:
    return [event["event"] for event in History.read(folder)]


@pytest.mark.parametrize("torn", ['{"event": "eval", "gener', "\0\0\0"])
def test_the_line_after_a_torn_one_is_read(folder, torn):
    Ledger(folder, 1, "rank0").write("environment")
    with (folder / "events" / "0001-rank0.jsonl").open("a") as file:
        file.write(torn)
    for event in ("work", "cancel"):
        Ledger(folder, 1, "rank0").write(event)
    assert names(folder) == ["environment", "work", "cancel"]


def test_an_event_that_found_room_for_half_of_it_is_written_once(folder, capsys):
    pen = Ledger(folder, 1, "rank0")
    pen.write("environment")
    length = (folder / "events" / "0001-rank0.jsonl").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for room in (1.5, 3.0):  # the second time there is room for one of the two that wait, and a half
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(room * length), before[1]))
            pen.write("work")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert capsys.readouterr().out.count("ledger: File too large") == 2
    pen.write("cancel")
    assert names(folder) == ["environment", "work", "work", "cancel"]


def test_events_of_one_writer_stay_as_they_lie_in_its_file(folder):
    """Two of its processes number each their own."""
    first, second = (Ledger(folder, 1, "cancel") for _ in range(2))
    for pen, event in ((first, "a"), (first, "b"), (second, "c")):
        pen.write(event)
    assert names(folder) == ["a", "b", "c"]


def test_scores_take_each_others_place_whatever_the_clocks_say():
    def found(number: int, time: float, event: str = "eval", generation: int = 1, by: int | None = None) -> dict:
        told = {"by": f"evals/knn-{by}"} if by else {}
        return row(event, generation, step=5, time=time, number=number, **told)

    of_job_10, of_job_2 = found(0, 1.0, by=10), found(1, 9.0, by=2)
    own, later, early = found(2, 7.0), found(3, 3.0, generation=2), found(4, 8.0, "scored", generation=2)
    judged = History([of_job_10, of_job_2, own, later, early]).judged()
    assert [event["number"] for event in judged] == [4, 2, 3, 1, 0]


def test_what_is_no_event_is_left_out(folder):
    """Of a disk, of somebody who may write there, or of another version: no reader of the events meets it."""
    pen = Ledger(folder, 1, "rank0")
    pen.write("start", cause="submitted")
    file = folder / "events" / "0001-rank0.jsonl"
    whole = json.loads(file.read_text())
    values = None, [], {}, 10**400, math.nan
    odd = [{**whole, key: value} for key in whole for value in values]
    odd += [{**whole, key: "1" if type(value) is not str else 1} for key, value in whole.items()]
    lacking = [{k: v for k, v in whole.items() if k != key} for key in whole]
    lines = [json.dumps(row) for row in (*odd, *lacking, 5, [whole], None)]
    with file.open("a") as there:
        there.write("\n".join([*lines, "[" * 100_000, '{"a":' * 100_000, "\0" * 100, ""]))
    pen.write("cancel", by=1)
    assert names(folder) == ["start", "cancel"]


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ("placed", {"cluster": "local", "nodes": 1, "tasks_per_node": 2, "changes": ["tasks_per_node: 1 -> 2"]}),
        (
            "start",
            {"cause": "submitted", "pid": 7, "job": "7_1", "restart_count": 0, "nodes": "n[1-2]", "world_size": 2},
        ),
        ("end", {"state": "failed", "cause": "killed", "message": "", "exit_codes": [-9, 0]}),
        ("stalled", {"rank": 1, "node": "n1", "seconds": 60.0, "stage": "starting", "step": None}),
        ("paused", {"rank": 1, "node": "n1", "seconds": 60.0, "step": None, "alive_s": 61.0}),
        ("work", {"step": 3, "kept": True, "why": "", "resumed": 0}),
        ("stopped_at_safe_point", {"signal": None}),
        ("cancel", {"by": 7, "job": "7"}),
        ("eval", {"by": "evals/knn-1", "protocol": "knn", "step": 3, "digest": None, "scores": {"trained": math.nan}}),
        ("sweep", {"sweep": "rotnet-tiny-sweep-1", "values": {"seed": "0"}}),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_what_a_run_says_is_read(folder, event, said):
    Ledger(folder, 1, "batch").write(event, **said)
    assert names(folder) == [event]


def test_every_event_of_runs_made_before_is_read(made_before):
    for file in made_before.glob("**/events/*.jsonl"):
        lines = [json.loads(line)["event"] for line in file.read_text().splitlines()]
        there = [event["event"] for event in History.read(file.parents[1]) if event["writer"] == file.stem[5:]]
        assert there == lines


@pytest.mark.parametrize("how", ["a FIFO", "a link to itself", "a link to a device", "a folder", "larger than any"])
def test_a_ledger_that_is_none_is_refused_in_one_line(folder, how):
    Ledger(folder, 1, "rank0").write("start", cause="submitted")
    file = folder / "events" / "0001-rank0.jsonl"
    file.unlink()
    {
        "a FIFO": lambda: os.mkfifo(file),
        "a link to itself": lambda: file.symlink_to(file.name),
        "a link to a device": lambda: file.symlink_to("/dev/zero"),
        "a folder": file.mkdir,
        "larger than any": lambda: os.truncate(os.open(file, os.O_CREAT | os.O_RDWR), 2**40),
    }[how]()
    with pytest.raises(NotOurs, match=r"0001-rank0\.jsonl: it (is not a plain file|has 1,099,511,627,776 bytes)"):
        History.read(folder)
    if how != "larger than any":
        with pytest.raises(NotOurs):
            Ledger(folder, 1, "rank0")
