"""Values of `cluster.environment` reach the ranks, and nobody else: neither files for others nor verbs have them."""

import dataclasses
import json
import os
import stat
from types import SimpleNamespace

import pytest

from launcher.compose import evaluation
from launcher.compose.points import expand
from launcher.errors import InputError
from launcher.plan import kinds
from launcher.report.index import RunIndex
from launcher.run import private
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.slurm.meeting import Meeting
from launcher.spec.runspec import freeze
from launcher.spec.schema import ClusterConfig
from launcher.start import batch, ranks, submit
from launcher.start.standby import Standby
from launcher.sweep import record

WORDS = ("method=rotnet", "recipe=tiny", "cluster=generic", "cluster.environment.KEY=geheim", "cluster.environment.A=1")


@pytest.fixture
def run(ledgers):
    return ledgers.create(*WORDS)


def elsewhere(run, **environment):
    """Its spec with other variables."""
    spec = run.spec()
    cluster = ClusterConfig(**{**dataclasses.asdict(spec.cluster), "environment": environment})
    return dataclasses.replace(spec, cluster=freeze(cluster))


def in_files(folder, word):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and word in path.read_text(errors="ignore"))


def test_the_owner_reads_them_from_a_file_of_their_own(run):
    assert run.spec().cluster.environment == {"KEY": "geheim", "A": "1"}
    assert in_files(run.runs, "geheim") == [private.FILE]
    assert stat.S_IMODE((run.path / private.FILE).stat().st_mode) == 0o600


def test_they_are_no_part_of_the_identity_and_a_run_without_any_is_as_before(run, ledgers):
    plain = ledgers.create(*WORDS[:3])
    assert plain.spec().identity == run.spec().identity and plain.path == run.path
    other = ledgers.create(*WORDS[:3], "seed=1")
    assert not (other.path / private.FILE).exists()
    assert json.loads((other.path / "spec.json").read_text())["format"] == 1


def test_a_placement_has_its_own_and_what_is_put_back_finds_what_it_meant(run):
    plan, restore = kinds.make(run.spec()), run.standing()
    run.place(elsewhere(run, KEY="anders", B="neu"), plan)
    assert run.spec().cluster.environment == {"KEY": "anders", "B": "neu"}
    back = run.standing()
    run.place(elsewhere(run, KEY="drittes"), plan)
    back()
    assert run.spec().cluster.environment == {"KEY": "anders", "B": "neu"}
    restore()
    assert run.spec().cluster.environment == {"KEY": "geheim", "A": "1"}
    for word in ("geheim", "anders", "drittes"):
        assert in_files(run.runs, word) == [private.FILE]


def test_no_list_and_no_difference_shows_them(run):
    (row,), _ = RunIndex(run.runs, config=True).rows()
    assert row.config["cluster"]["environment"] == {"KEY": "***", "A": "***"}
    changes = run.spec().differences(elsewhere(run, KEY="anders", A="1"))
    assert "cluster.environment.KEY: *** -> ***" in changes and not any(".A:" in change for change in changes)


def test_nor_does_the_record_of_a_sweep(ledgers, tmp_path):
    words = [*WORDS, "seed=1,2", f"runs={tmp_path / 'runs'}"]
    points = expand(words)
    runs = [ledgers.create(*WORDS, f"seed={seed}") for seed in (1, 2)]
    name = record.record(words, points, runs)
    text = (ledgers.folder / record.FOLDER / f"{name}.json").read_text()
    assert "geheim" not in text and "cluster.environment.KEY=***" in text


def test_an_evaluation_keeps_them_apart_too(run, ledgers):
    ledgers.start(run)
    ledgers.save(run, 10)
    ledgers.end(run)
    (run.path / "code").unlink()
    made, _ = evaluation.prepare(run, evaluation.want(run, ["protocol=knn"]))
    assert made.spec().cluster.environment == {"KEY": "geheim", "A": "1"}
    assert in_files(run.runs, "geheim") == [private.FILE] * 2


def test_ranks_of_a_job_get_them(run, tmp_path, monkeypatch):
    (tmp_path / "srun").write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\n")
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    ranks.start(
        run,
        run.spec(),
        tmp_path,
        ["n1"],
        Meeting("127.0.0.1", 1, {}),
        1,
        SimpleNamespace(pass_on=lambda *_: None),
        Standby(),
        beside=False,
    )
    assert "KEY=geheim\n" in (tmp_path / "seen").read_text()


def test_where_they_are_lost_nothing_starts(run, slurm_said):
    slurm_said.says("squeue", "")
    (run.path / private.FILE).unlink()
    said = r"cluster\.environment\.KEY: its value is not in .*private\.json; give it again: `sslrun resume RUN"
    with pytest.raises(InputError, match=said):
        submit.submit([run])
    here = SimpleNamespace(told=SimpleNamespace(signal=None), nodes=None)
    with pytest.raises(InputError, match=said):
        batch._work(run, run.spec(), ["n1"], Ledger(run.path, 1, "batch"), here)
    (row,), _ = RunIndex(run.runs, config=True).rows()
    assert row.config["cluster"]["environment"]["KEY"] == "***"  # and it is listed all the same


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_the_group_reads_all_but_them(run):
    for path in (run.path, *run.path.rglob("*")):
        if path.name != private.FILE and not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.chmod(run.runs, 0o755)
            os.chdir(run.path)
            os.setgid(65534)
            os.setuid(65534)
            said = dict(RunDir(".").spec().cluster.environment)
            os.write(writer, json.dumps(said).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        said = json.loads(answer.read())
    assert said.keys() == {"KEY", "A"} and all(value.startswith("kept-apart-") for value in said.values())


def test_code_from_before_finds_all_where_it_looks(ledgers):
    run = ledgers.create(*WORDS[:3])
    (run.code_folder().resolve() / "launcher" / "run").mkdir(parents=True)
    run.place(elsewhere(run, KEY="geheim"), kinds.make(run.spec()))
    assert json.loads((run.path / "placement.json").read_text())["cluster"]["environment"] == {"KEY": "geheim"}
    assert run.spec().cluster.environment == {"KEY": "geheim"}
