"""Runs that an earlier sslrun made, before its files had the rooms of today: they open, join, report, and go on with
the code that they were made with.

`made_before` holds two, as that version left them: one was stopped after step 9 of 18; one is done and was evaluated,
and its checkpoints are gone.
"""

from launcher.run.folder import RunDir

STOPPED, DONE = "rotnet-tiny-d438549a", "rotnet-tiny-caa2e7a3"
WORDS = (
    "method=rotnet", "recipe=tiny", "method.backbone=small_vit", "method.checkpoint_every=1000", "method.image_size=16",
)  # fmt: skip


def test_they_are_listed_shown_and_reported(sslrun, made_before, tmp_path):
    rows = {row["id"]: row for row in sslrun("status", f"runs={made_before}", "--json").json}
    assert {id: (row["state"], row["step"]) for id, row in rows.items()} == {
        STOPPED: ("stopped", 9),
        DONE: ("done", 18),
    }
    shown = sslrun.show(made_before / DONE)
    assert shown["evals"].keys() == {"knn", "logistic"} and shown["evals"]["knn"]["trained"] > 0
    page = tmp_path / "page.html"
    sslrun("report", DONE, f"runs={made_before}", f"--out={page}")
    assert "logistic" in page.read_text()


def test_the_same_words_join_them(sslrun, made_before):
    again = sslrun(*WORDS, "seed=1", "method.epochs=2", f"runs={made_before}", "--json").json
    assert (again["id"], again["joined"], again["state"]) == (DONE, True, "done")


def test_a_stopped_one_goes_on_with_its_own_code(sslrun, made_before):
    before = RunDir(made_before / STOPPED).code()
    sslrun("resume", STOPPED, f"runs={made_before}")
    run = RunDir(made_before / STOPPED)
    done = sslrun.show(run.path)
    assert (done["state"], done["step"], done["lost_steps"]) == ("done", 18, 0)
    assert [event["step"] for event in run.history().all("restored")] == [9]
    assert run.code() == before and (run.code_folder() / "launcher" / "worker.py").is_file()
