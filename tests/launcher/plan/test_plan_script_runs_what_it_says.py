"""The batch script, run by bash as Slurm would: it starts the job's Python and nothing that hides in a name."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from launcher.compose.training import resolve
from launcher.errors import InputError
from launcher.plan import script, setup

# Stands where the job's Python would: says how it was called.
INTERPRETER = f"""#!/bin/bash
exec '{sys.executable}' -S -c 'import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))' "$@"
"""
NAMES = [
    "plain", "two words", "quo'te", 'dou"ble', "'both\"'", "semi;touch PWNED;", "$(touch PWNED)", "`touch PWNED`",
    "&& touch PWNED", "| touch PWNED", "#no comment", "per%cent 100%", "* ?[x]", "{a,b}", "!bang", "~", "-dash", "é漢",
    "trailing ", "> PWNED",
]  # fmt: skip
REFUSED = ["new\nline", "nul\0", "tab\t", "\x1b[31m", "bad\udcff", "\u2028", "back\\slash", "co:lon", "100%j", "%A_%a"]


@pytest.fixture
def submission(tmp_path):
    """`submission(name, *overrides, **environment)`: the script of a run under a folder `name`, run by bash."""

    def make(name, *overrides, environment=(), break_it=lambda folder, python: None):
        spec, _ = resolve(["method=rotnet", "recipe=tiny", "cluster=generic", *overrides])
        spec = dataclasses.replace(spec, runs=str(tmp_path / name))
        folder = tmp_path / name / spec.run_id / "submit"
        folder.mkdir(parents=True)
        python = folder / "python"
        python.write_text(INTERPRETER)
        python.chmod(0o700)
        for index in range(2):
            (folder / f"{index}.pkl").write_text(f"pickle {index}")
        break_it(folder, python)
        parameters = script.parameters(spec, signal_delay_s=60, python=str(python))
        (tmp_path / "script.sh").write_text(script.text(folder, parameters, python=str(python)))
        done = subprocess.run(
            ["bash", "script.sh"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n1", **dict(environment)},
            capture_output=True,
            text=True,
        )
        return folder, done

    return make


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_name_is_carried_and_never_executed(submission, name, tmp_path):
    folder, done = submission(name)
    assert (done.returncode, done.stderr) == (0, "")
    arguments, environment = json.loads(done.stdout)
    assert arguments == ["-u", "-m", "submitit.core._submit", str(folder)]
    assert environment["PYTHONPATH"] == f"{folder}/code"
    assert environment["PYTHONSAFEPATH"] == "1" and environment["PYTHONUTF8"] == "1"
    assert (folder / "7_submitted.pkl").read_text() == "pickle 0"
    assert not list(tmp_path.rglob("PWNED"))


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_that_no_quotes_can_carry_is_wrong_input(name):
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "cluster=generic"])
    spec = dataclasses.replace(spec, runs=f"/runs/{name}")
    with pytest.raises(InputError, match=r"^runs=.*choose another folder|^runs=.*leave it out"):
        script.parameters(spec, signal_delay_s=60)


def test_each_task_of_an_array_takes_its_own_pickle(submission):
    inside = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "1"}
    folder, done = submission("array", environment=inside)
    assert done.returncode == 0
    assert (folder / "8_1_submitted.pkl").read_text() == "pickle 1"


def test_a_job_that_is_requeued_takes_its_pickle_again(submission, tmp_path):
    folder, _ = submission("again")
    environment = {"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7"}
    again = subprocess.run(["bash", "script.sh"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (again.returncode, again.stderr) == (0, "")
    assert (folder / "7_submitted.pkl").read_text() == "pickle 0"


def test_the_submitters_bindings_stay_outside(submission):
    foreign = {
        "SLURM_CPU_BIND": "mask_cpu:0x1", "SLURM_CPU_BIND_TYPE": "mask_cpu:", "SLURM_MEM_BIND": "local",
        "SLURM_DISTRIBUTION": "cyclic", "SLURM_EXPORT_ENV": "NONE", "SLURM_HINT": "nomultithread",
    }  # fmt: skip
    kept = {"SLURM_CONF": "/etc/slurm.conf", "PYTHONPATH": "/mine", "SLURM_CPUS_ON_NODE": "4"}
    folder, done = submission("plain", environment={**foreign, **kept})
    _, environment = json.loads(done.stdout)
    assert not foreign.keys() & environment.keys()
    assert {name: environment[name] for name in kept} == {**kept, "PYTHONPATH": f"{folder}/code:/mine"}


def test_what_the_user_asked_sbatch_for_reaches_srun(submission):
    option = "cluster.additional_parameters.distribution=block:cyclic"
    _, done = submission("plain", option, environment={"SLURM_DISTRIBUTION": "block:cyclic", "SLURM_HINT": "x"})
    _, environment = json.loads(done.stdout)
    assert environment["SLURM_DISTRIBUTION"] == "block:cyclic"
    assert "SLURM_HINT" not in environment


def test_the_users_lines_run_first_and_as_they_stand(submission):
    lines = "cluster.setup=['export A=$((1+1)) PATH=\"/first:$PATH\"','export PYTHONPATH=$A']"
    folder, done = submission("plain", lines)
    _, environment = json.loads(done.stdout)
    assert environment["A"] == "2"
    assert environment["PATH"].startswith("/first:")
    assert environment["PYTHONPATH"] == f"{folder}/code:2"


def test_that_setup_was_done_once_is_left_in_the_folder(submission):
    folder, done = submission("two words", "cluster.setup=['set -eC','A=1']")
    assert done.returncode == 0 and (folder / setup.mark(["set -eC", "A=1"])).exists()
    assert not list(submission("failed", "cluster.setup=['false']")[0].glob("did-*"))


@pytest.mark.parametrize("knows", [True, False])
def test_the_jobs_python_is_told_what_failed_where_its_code_knows_that(submission, knows):
    def code(folder, python):
        (folder / "code" / "launcher" / "plan").mkdir(parents=True)
        if knows:
            (folder / "code" / "launcher" / "plan" / "setup.py").touch()

    folder, done = submission("two words", "cluster.setup=['export A=1','false']", break_it=code)
    said = "n1: cluster.setup[1] `false` ended with 1"
    first, *rest = done.stdout.splitlines()
    assert first == f"sslrun: {said}"
    if knows:
        arguments, environment = json.loads(rest[0])
        assert arguments[-1] == str(folder) and environment["SSLRUN_UNREADY"] == said
    assert (done.returncode, len(rest)) == ((0, 1) if knows else (3, 0))


@pytest.mark.parametrize(
    "line",
    [
        "set -euo pipefail",
        "set -fx",
        "IFS=:",
        "trap true EXIT",
        "readonly PYTHONHOME=/x",
        "PATH=/nowhere",
        "cp() (exit 1)",
    ],
)
def test_how_the_users_shell_is_set_does_not_matter(submission, line):
    folder, done = submission("two words", f'cluster.setup=["{line}"]')
    assert done.returncode == 0 and json.loads(done.stdout)[0][-1] == str(folder)


def test_files_of_the_job_are_private_unless_shared_with_a_group(submission):
    modes = {}
    for name, overrides in (("mine", ()), ("ours", ("group=staff",))):
        folder, done = submission(name, *overrides, "cluster.setup=['umask > umask.txt']")
        assert done.returncode == 0
        modes[name] = (folder.parents[2] / "umask.txt").read_text().strip()
    assert modes == {"mine": "0077", "ours": "0027"}


@pytest.mark.parametrize(
    "break_it, words",
    [
        (lambda folder, python: python.unlink(), ("n1 has no", "python;", "cluster.python")),
        (lambda folder, python: python.chmod(0o600), ("n1 has no", "python;", "cluster.python")),
    ],
    ids=["no interpreter", "not executable"],
)
def test_a_node_that_lacks_something_says_so_in_one_line(submission, break_it, words):
    _, done = submission("plain", break_it=break_it)
    assert done.returncode == 3
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    assert line.startswith("sslrun: ") and all(word in line for word in words)


def test_a_folder_that_a_node_does_not_see_is_named(submission, tmp_path):
    spec, _ = resolve(["method=rotnet", "recipe=tiny", "cluster=generic"])
    folder = tmp_path / "unseen"
    (tmp_path / "python").write_text(INTERPRETER)
    (tmp_path / "python").chmod(0o700)
    parameters = script.parameters(spec, signal_delay_s=60, folder=folder, python=str(tmp_path / "python"))
    text = script.text(folder, parameters, python=str(tmp_path / "python"))
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, env={"SLURM_JOB_ID": "7"})
    assert (done.returncode, done.stderr) == (3, "")
    (line,) = done.stdout.splitlines()
    assert f"has no {folder} of yours" in line and "runs=PATH" in line
