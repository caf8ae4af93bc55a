"""Exactness holds on the same software: a resume on another says what changed."""

import json


def test_a_resume_on_other_versions_says_what_changed(sslrun, copied):
    file = copied / "events" / "0001-rank0.jsonl"
    events = [json.loads(line) for line in file.read_text().splitlines()]
    (recorded,) = [event for event in events if event["event"] == "environment"]
    now = recorded["versions"]["torch"], recorded["threads"], recorded["cpu"]
    recorded["versions"]["torch"], recorded["threads"], recorded["cpu"] = "2.6.0", 61, "An older one"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))

    said = sslrun("resume", copied).err
    assert f"torch: 2.6.0 -> {now[0]}" in said
    assert f"threads: 61 -> {now[1]}" in said
    assert f"cpu: An older one -> {now[2]}" in said
    assert said.count("the environment changed") == 3  # and nothing that did not change
