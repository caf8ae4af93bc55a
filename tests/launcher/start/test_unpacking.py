"""The environment of a run on the nodes of its job: what they say while it is unpacked, and what comes of it."""

import errno
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from launcher.errors import InputError, NodesRefused, NotStarted, Unreadable
from launcher.run.folder import ENVIRONMENTS, RunDir
from launcher.run.ledger import Ledger
from launcher.spec.runspec import RunSpec
from launcher.start import packed, preflight, submit, unpacked, unpacking

NODES = ["n1", "n2", "n3"]
THERE = ("n1", "there"), ("n3", "there")
PACKED = {
    "digest": "d1",
    "sha256": "",
    "size": 0,
    "bytes": 0,
    "python": "env/bin/python",
    "prefixes": {"/my/env": "env"},
}


def said(*rows: tuple[str, str], **more: object) -> str:
    """A line of shell that has these nodes say these words."""
    lines = [json.dumps({"node": node, "is": word, **more}) for node, word in rows]
    return "\n".join(f"echo {shlex.quote(line)}" for line in lines)


@pytest.fixture
def run(runs, job, monkeypatch) -> RunDir:
    monkeypatch.setenv("SCRATCH", "/scratch of me")
    monkeypatch.setattr(preflight, "TICK_SECONDS", 0.1)
    run = runs.make(nodes=3, local_env="$SCRATCH/env", environment={"MINE": "/my/env"})
    Ledger(run.path, 1, "submit").write("packed", **PACKED)
    return run


@pytest.fixture
def unpack(run, job):
    """`unpack(script)`: the spec by which ranks start where srun does this."""

    def do(script: str, unwanted=lambda: False) -> RunSpec:
        job.srun(script)
        ledger = Ledger(run.path, 1, "batch")
        return unpacking.on_nodes(run, run.spec(), run.code_folder(), NODES, ledger, beside=False, unwanted=unwanted)

    return do


def test_ranks_start_from_the_copy(run, unpack, monkeypatch):
    monkeypatch.setenv("PATH", "/my/env/bin", prepend=":")
    monkeypatch.setenv("VIRTUAL_ENV", "/my/env")
    monkeypatch.setenv("ANOTHER", "/my/env2")
    spec = unpack(f"echo Welcome\n{said(('n1', 'unpacking'), *THERE)}\n{said(('n2', 'there'), fresh=True)}")
    copy = str(unpacked.home("/scratch of me/env") / "d1")
    assert shlex.split(spec.cluster.python) == [f"{copy}/env/bin/python"]
    there = spec.cluster.environment
    assert there["PATH"].startswith(f"{copy}/env/bin:") and "ANOTHER" not in there
    assert (there["VIRTUAL_ENV"], there["MINE"], there[unpacked.VARIABLE]) == (f"{copy}/env", "/my/env", copy)
    event = run.history().last("unpacked")
    assert (event["digest"], event["path"], event["fresh"]) == ("d1", copy, 1)


def test_nodes_that_cannot_have_it_are_named(run, unpack):
    with pytest.raises(NodesRefused) as refused:
        unpack(f"{said(*THERE)}\n{said(('n2', 'refused'), why='has no folder /scratch')}\nexit 3")
    assert refused.value.why == {"n2": "has no folder /scratch"}
    assert str(refused.value) == "n2 has no folder /scratch"
    assert str(refused.value.of_all()) == (
        f"n2 has no folder /scratch; `sslrun resume {run.typed} cluster.local_env=FOLDER` takes another one, "
        "and null in its place none"
    )


def test_a_node_without_news_is_named(unpack, monkeypatch):
    monkeypatch.setattr(unpacking, "STILL_SECONDS", 1.0)
    with pytest.raises(NodesRefused) as refused:
        unpack(f"{said(*THERE)}\n{said(('n2', 'unpacking'))}\nexec sleep 20")
    assert refused.value.why == {"n2": "has not got on with unpacking the environment for 1 s"}


@pytest.mark.parametrize("script", ["sleep 0.6\n{late}\nexec sleep 20", "{there}\nexec sleep 20", "exec sleep 20"])
def test_where_most_are_without_news_a_file_server_may_be_away(unpack, monkeypatch, script):
    """Of those that are, one had news somewhat later than the others."""
    monkeypatch.setattr(unpacking, "STILL_SECONDS", 2.0)
    lines = {"there": said(("n1", "there")), "late": said(("n1", "there"), ("n2", "unpacking"))}
    with pytest.raises(NotStarted, match=r"^each of .*n2, n3 has not got on .* for 2 s$") as failed:
        unpack(script.format(**lines))
    assert not isinstance(failed.value, NodesRefused)


UNREAD = {"why": "cannot read it", "unread": True}


@pytest.fixture
def archive(run) -> Path:
    folder = run.runs / ENVIRONMENTS / "d1"
    folder.mkdir(parents=True)
    (folder / unpacked.ARCHIVE).touch()
    return folder / unpacked.ARCHIVE


def test_an_archive_that_most_cannot_read_may_be_read_later(unpack, archive):
    with pytest.raises(Unreadable, match=r"^each of n1, n2 cannot read it$"):
        unpack(f"{said(('n1', 'refused'), ('n2', 'refused'), **UNREAD)}\n{said(('n3', 'there'))}\nexit 3")
    with pytest.raises(NodesRefused) as refused:
        unpack(f"{said(*THERE)}\n{said(('n2', 'refused'), **UNREAD)}\nexit 3")
    assert refused.value.why == {"n2": "cannot read it"}


def test_one_that_nobody_can_read_is_waited_for(unpack, archive, monkeypatch):
    asked = []
    monkeypatch.setattr(unpacking.waiting, "SECONDS", 0.0)
    monkeypatch.setattr(unpacking.waiting, "refuse_unanswered", lambda path: asked.append(path) or _away(path))
    with pytest.raises(Unreadable, match=rf"^{archive} cannot be read on .* \(Stale file handle\); it was tried for"):
        unpack(f"{said(*THERE)}\n{said(('n2', 'refused'), **UNREAD)}\nexit 3")
    assert asked == [archive]


def _away(path: Path) -> None:
    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))


def test_one_that_is_gone_is_packed_again_by_resume(run, unpack):
    said_of = (
        rf"^cluster.local_env=\$SCRATCH/env: .*: No such file or directory; `sslrun resume {run.path}` packs it again$"
    )
    with pytest.raises(InputError, match=said_of):
        unpack(f"{said(*THERE)}\n{said(('n2', 'refused'), **UNREAD)}\nexit 3")


def test_one_that_is_not_what_was_packed_is_packed_again_by_resume(run, unpack, archive):
    """Unless a node has read it: then the other is to blame."""
    spoiled = said(("n2", "refused"), why="reads something else", spoiled=True)
    about = archive.with_name(packed.ABOUT)
    about.write_text(json.dumps(PACKED))
    with pytest.raises(NodesRefused):
        unpack(f"{said(*THERE, fresh=True)}\n{spoiled}\nexit 3")
    assert about.exists()
    line = rf"^cluster.local_env=\$SCRATCH/env: n2 reads something else; `sslrun resume {run.typed}` packs it again$"
    with pytest.raises(InputError, match=line):
        unpack(f"{said(*THERE)}\n{spoiled}\nexit 3")
    assert not about.exists()
    about.write_text(json.dumps({**PACKED, "sha256": "of what was packed since"}))
    with pytest.raises(InputError):
        unpack(f'echo "$*" > {archive}.order\n{spoiled}\nexit 3')
    assert "of what was packed since" in Path(f"{archive}.order").read_text()


def test_one_with_news_is_waited_for(unpack, monkeypatch):
    monkeypatch.setattr(unpacking, "STILL_SECONDS", 2.0)
    news, there = said(("n1", "waiting"), ("n2", "unpacking"), ("n3", "waiting")), said(*THERE, ("n2", "there"))
    assert unpack(f"for n in 1 2 3 4 5; do {news}\nsleep 0.5; done\n{there}")


@pytest.mark.parametrize("script", ["exec sleep 600", "trap '' TERM; while sleep 1; do :; done"])
def test_a_start_that_is_to_end_does_not_wait_for_it(unpack, monkeypatch, script):
    monkeypatch.setattr(unpacking, "END_SECONDS", 0.5)
    monkeypatch.setattr(preflight, "HEED_SECONDS", 0.0)
    with pytest.raises(NotStarted, match="to end while its environment was unpacked"):
        unpack(script, lambda: True)


@pytest.mark.parametrize("script", ["exit 1", f"{said(('n1', 'there'))}", "echo 'srun: error: n2 is lost' >&2; exit 1"])
def test_what_fails_otherwise_is_no_nodes_fault(unpack, script):
    with pytest.raises(NotStarted, match=r"^unpacking the environment failed: ") as failed:
        unpack(script)
    assert not isinstance(failed.value, NodesRefused)
    assert ("n2 is lost" in str(failed.value)) == ("n2 is lost" in script)


def test_without_a_packed_environment_or_its_variable_the_line_says_what_to_do(run, unpack, monkeypatch):
    monkeypatch.delenv("SCRATCH")
    with pytest.raises(InputError, match=r"^cluster.local_env=\$SCRATCH/env: no such variable is set in the job$"):
        unpack("exit 0")
    shutil.rmtree(run.path / "events")
    (run.path / "events").mkdir()
    with pytest.raises(InputError, match=rf"names no packed environment; `sslrun resume {run.path}` packs it$"):
        unpack("exit 0")


def test_what_older_code_reads_says_nothing_of_it_unless_it_is_used(runs):
    for given, known in ((None, False), ("/scratch", True)):
        spec = runs.spec(local_env=given)
        for file in (spec.to_json(), spec.placement({})):
            assert ("local_env" in file["cluster"]) == known


def test_code_that_knows_no_copies_is_not_asked_for_one(run):
    submit.refuse_unknown(run, run.spec())  # of a folder without any of our rooms nothing is known
    code = run.code_folder().resolve()
    (code / "launcher" / "plan").mkdir(parents=True)
    (code / "launcher" / "plan" / "worlds.py").touch()
    with pytest.raises(InputError, match=r"^cluster.local_env=\$SCRATCH/env: the code that .* --code=current 'cluster"):
        submit.refuse_unknown(run, run.spec())
    (code / "launcher" / "start").mkdir()
    (code / "launcher" / "start" / "unpacking.py").touch()
    submit.refuse_unknown(run, run.spec())
    assert Path(code, "module.py").exists()
