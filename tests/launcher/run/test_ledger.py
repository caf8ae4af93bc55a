"""What a run's history answers."""

from launcher.run.ledger import History


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
