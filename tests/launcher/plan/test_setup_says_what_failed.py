"""Items of cluster.setup, run by bash as Slurm runs a batch script: what they set stays, and the first that fails is
named with what it said."""

import os
import subprocess

import pytest

from launcher.plan import setup

# What stands below the items: says what they left, and what the job's Python is told.
AFTER = (
    'printf "%s|" "A=${A:-}" "$PWD" >> "$REPORT"; [ -z "$sslrun_failed" ] || printf %s "$sslrun_failed" >> "$REPORT"'
)


@pytest.fixture
def ran(tmp_path):
    """`ran(items)`: (exit code, A, the folder, which item failed), and the log as `ran.log`."""

    def run(items, then=setup.RECORDED):
        script, log, report = (tmp_path / name for name in ("the script.sh", "slurm %j.log", "report"))
        script.write_text("\n".join(["#!/bin/bash", *setup.lines(items, then), AFTER, "true"]))
        log.write_text("of an earlier start\n")
        environment = {"PATH": os.environ["PATH"], "SLURMD_NODENAME": "n3", "REPORT": str(report)}
        with open(log, "ab") as out, open(log, "ab") as err:  # as Slurm opens it: twice
            done = subprocess.run(["bash", script], cwd=tmp_path, stdout=out, stderr=err, env=environment, timeout=60)
        run.log = log.read_text(errors="replace").removeprefix("of an earlier start\n")
        left, folder, failed = (report.read_text(errors="surrogateescape") if report.exists() else "||").split("|", 2)
        return done.returncode, left.removeprefix("A="), folder, failed

    return run


STAYS = {
    "a variable": ["export A=1"],
    "over several items": ["if true; then", "A=1", "else", "A=2", "fi"],
    "a loop": ["for A in 2 1; do", ":", "done"],
    "a here-document": ["cat > file <<END", "1", "END", "A=$(cat file)"],
    "a here-document in one item": ["cat > file <<END\n1\nEND", "A=$(< file)"],
    "a quote over two items": ["export B='x", "y'", "[ \"$B\" = $'x\\ny' ] && A=1"],
    "a backslash at the end": ["export B=2 \\", "A=1"],
    "an operator at the end": ["true &&", "A=1"],
    "a function": ["set_a() {", "A=$1", "}", "set_a 1"],
    "case": ["case x in", "x) A=1 ;;", "esac"],
    "an alias": ["shopt -s expand_aliases", "alias set_a='A=1'", "set_a"],
    "a pattern of an option": ["shopt -s extglob", "[[ xx = +(x) ]] && A=1"],
    "what declare makes": ["declare -A map", "map[x]=1; A=${map[x]}"],
    "arguments": ["set -- 1 2", "A=$1"],
    "what may fail": ["false || true", "A=1"],
    "inside, what is sourced": ["echo 'false; true' > file", ". ./file", "A=1"],
    "the last command of an item": ["false; A=1"],
    "the last line of an item": ["false\nA=1"],
    "comments": ["# nothing", "A=1 # something"],
    "in the background": ["sleep 0 &", "A=1"],
    "a strict shell": ["set -euo pipefail", "A=1"],
    "a POSIX shell": ["set -o posix", "if true; then", "A=1", "fi"],
    "other separators": ["IFS=1:", "A=1"],
    "redirections of the shell": ["exec 3>&1", "exec {other}>&1", "exec >file 2>&1", "exec &>file", "A=1"],
    "exec inside": ["(exec true)", "cat > file <<END", "exec false", "END", "A=1"],
    "a PATH that leads nowhere": ["export PATH=/nowhere", "A=1"],
    "a trap at the end of the shell": ["trap 'true' EXIT", "[[ $(trap -p EXIT) = *left* ]] && A=1"],
    "a trap": ["trap 'true' EXIT TERM ERR DEBUG", "A=1"],
}


@pytest.mark.parametrize("what", STAYS)
def test_what_items_do_stays(ran, what, tmp_path):
    assert ran(STAYS[what]) == (0, "1", str(tmp_path), "")
    assert ran.log == ""


def test_they_are_in_the_jobs_own_shell(ran):
    assert ran(["cd /", "export A=1", "trap 'echo mine' EXIT"]) == (0, "1", "/", "")
    assert ran.log == "mine\n"


FAILS = {
    "nothing said": (["export A=1", "false"], "[1] `false` ended with 1"),
    "what it said": (["echo other", "echo one; echo two >&2; (exit 7)"], "[1] `echo one; echo two >&2; (exit 7)` ended "
        "with 7: two"),
    "blank lines": (["echo one; echo; echo '  '; false"], "[0] `echo one; echo; echo '  '; false` ended with 1: one"),
    "no command": (["no_such_command"], "[0] `no_such_command` ended with 127: no_such_command: command not found"),
    "it leaves": (["echo no; exit 3"], "[0] `echo no; exit 3` left the shell with 3: no"),
    "it leaves well": (["exit 0"], "[0] `exit 0` left the shell with 0"),
    "it takes the shell": (["exec true"], "[0] `exec true` would take the place of the job's shell: leave out `exec`"),
    "it takes it by a variable": (["A=true", "  exec $A >file"], "[1] `  exec $A >file` would take the place"),
    "it takes it after several lines": (["exec \\", "true"], "[0] `exec \\ ...` would take the place"),
    "what is sourced leaves": (["echo 'exit 4' > file", ". ./file"], "[1] `. ./file` left the shell with 4"),
    "what is sourced returns": (["echo 'return 4' > file", ". ./file"], "[1] `. ./file` ended with 4"),
    "several items": (["true", "if true; then", "false", "fi"], "[1] `if true; then ...` ended with 1"),
    "a strict shell": (["set -eu", "echo no; false; true"], "[1] `echo no; false; true` left the shell with 1: no"),
    "an unset variable": (["set -u", "echo $NONE"], "[1] `echo $NONE` left the shell with 1: NONE: unbound variable"),
    "a shell that shows all": (["set -x", "echo no; false"], "[1] `echo no; false` ended with 1: no"),
    "a PATH that leads nowhere": (["PATH=/nowhere", "false"], "[1] `false` ended with 1"),
    "it leaves after a trap of its own": (["trap 'true' EXIT", "exit 7"], "[1] `exit 7` left the shell with 7"),
    "what it said, with such a PATH": (["PATH=/nowhere", "echo no; false"], "[1] `echo no; false` ended with 1: no"),
    "a trap of its own": (["trap 'true' EXIT", "false"], "[1] `false` ended with 1"),
    "no text": (["printf 'bad \\xff\\n'; false"], "[0] `printf 'bad \\xff\\n'; false` ended with 1: bad \udcff"),
    "quotes": (["echo '\"`$x`'; false"], "[0] `echo '\"`$x`'; false` ended with 1: \"`$x`"),
    "long": (["false " + 90 * "x"], f"[0] `false {71 * 'x'}...` ended with 1"),
    "much said": (["printf %900d; false"], None),
    "never closed": (["true", "if true; then", "A=1"], "[1] `if true; then ...` is no whole command: syntax error"),
    "nothing to close": (["echo )", "A=1"], "[0] `echo ) ...` is no whole command: syntax error near unexpected token"),
    "no end of text": (["cat <<END", "x"], "[0] `cat <<END ...` is no whole command: warning: here-document at line"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAILS)
def test_the_first_that_fails_is_named(ran, what):
    items, said = FAILS[what]
    code, _, _, failed = ran([*items, "echo never"])
    if said:
        assert failed.startswith(f"n3: cluster.setup{said}") and len(failed) < 500
    assert code == 0 and failed and len(failed) < 500  # the script went on, to tell
    assert "never" not in ran.log and ran.log.count("sslrun: n3: cluster.setup[") == 1


def test_what_fails_may_also_end_the_script(ran):
    assert ran(["echo no; false", "echo never"], setup.GIVEN_UP) == (3, "", "", "")
    assert ran.log == "no\nsslrun: n3: cluster.setup[0] `echo no; false` ended with 1: no\n"


def test_that_is_done_once_where_an_item_leaves_the_shell(ran):
    ran(["trap 'echo mine' EXIT", "echo no; exit 3"])
    assert ran.log.splitlines() == [
        "no",
        "sslrun: n3: cluster.setup[1] `echo no; exit 3` left the shell with 3: no",
        "mine",
    ]


@pytest.mark.parametrize("then", [setup.RECORDED, setup.GIVEN_UP])
def test_what_an_item_has_the_shell_do_at_its_end_is_done_then(ran, then):
    ran(["trap 'echo mine' EXIT", "false"], then)
    assert ran.log.splitlines() == ["sslrun: n3: cluster.setup[1] `false` ended with 1", "mine"]


def test_a_shell_that_slurm_ends_blames_no_item(ran):
    assert ran(["kill -TERM $$; sleep 0", "echo never"]) == (143, "", "", "")
    assert ran.log == ""


def test_no_items_no_lines():
    assert setup.lines([], setup.RECORDED) == []
