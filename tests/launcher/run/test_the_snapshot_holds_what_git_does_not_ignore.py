"""What is copied at submission is the code as it lies there: committed, changed and new files, and nothing ignored."""

import io
import multiprocessing
import shutil
import subprocess

import pytest

from launcher.errors import InputError
from launcher.run import snapshot

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="no git")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in a checkout, instead of ours."""
    folder = tmp_path / "checkout" / "toycode"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(snapshot, "PACKAGES", ("toycode",))
    return folder


def git(folder, *words):
    me = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    subprocess.run(["git", "-C", str(folder), *me, *words], check=True, capture_output=True)


def contents(taken):
    return {p.relative_to(taken.path).as_posix(): p.read_text() for p in taken.path.rglob("*.*") if p.is_file()}


def test_tracked_modified_and_untracked_files(package, tmp_path):
    (package / "kept.py").write_text("kept")
    (package / "changed.py").write_text("before")
    (package / "gone.py").write_text("gone")
    (package / ".gitignore").write_text("*.npy\n")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    first = snapshot.take("rotnet", tmp_path / "runs")
    assert not first.origin.endswith("+changes")

    (package / "changed.py").write_text("after")
    (package / "new.py").write_text("new")
    (package / "large.npy").write_text("data")
    (package / "gone.py").unlink()
    second = snapshot.take("rotnet", tmp_path / "runs")
    assert contents(second) == {
        "toycode/__init__.py": "", "toycode/.gitignore": "*.npy\n", "toycode/kept.py": "kept",
        "toycode/changed.py": "after", "toycode/new.py": "new",
    }  # fmt: skip
    assert second.digest != first.digest and second.origin == f"{first.origin}+changes"
    assert contents(first)["toycode/changed.py"] == "before"  # whoever was submitted with it still has it
    assert snapshot.take("rotnet", tmp_path / "runs").path == second.path
    for taken in (first, second):
        assert snapshot.verify(taken.path, taken.digest) == taken.path


def test_git_is_asked_once_which_commit_it_is(tmp_path, monkeypatch):
    """It looks at every file of the checkout for that; our packages lie in one."""
    asked, run = [], subprocess.run
    monkeypatch.setattr(snapshot.subprocess, "run", lambda words, **rest: asked.append(words[3]) or run(words, **rest))
    snapshot.take("rotnet", tmp_path / "runs")
    assert asked.count("describe") <= 1 and asked.count("ls-files") == len(snapshot.PACKAGES)


def test_without_git_every_file_is_taken(package, tmp_path):
    (package / "part.py").write_text("part")
    taken = snapshot.take("rotnet", tmp_path / "runs")
    assert (contents(taken), taken.origin) == ({"toycode/__init__.py": "", "toycode/part.py": "part"}, "")


def test_several_at_the_same_time_make_one_copy(package, tmp_path):
    context, rounds = multiprocessing.get_context("fork"), [tmp_path / f"runs{number}" for number in range(20)]
    together = context.Barrier(6, timeout=600)

    def take():
        try:
            for runs in rounds:
                together.wait()
                snapshot.take("rotnet", runs)
        except Exception:
            together.abort()  # or the others would wait for this one
            raise

    started = [context.Process(target=take) for _ in range(together.parties)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert [process.exitcode for process in started] == [0] * len(started)
    for runs in rounds:
        (copy,) = (runs / ".code").iterdir()  # and none was called damaged
        snapshot.verify(copy, copy.name)


@pytest.mark.parametrize("spoiled", ["changed", "added", "removed"])
def test_a_file_more_or_less_or_another_is_noticed(package, tmp_path, spoiled):
    taken = snapshot.take("rotnet", tmp_path / "runs")
    file = taken.path / "toycode" / "__init__.py"
    file.chmod(0o600)
    match spoiled:
        case "changed":
            file.write_text("x")
        case "added":
            file.with_name("more.py").touch()
        case "removed":
            file.unlink()
    with pytest.raises(InputError, match=r"its hash has changed; .*--code=current"):
        snapshot.verify(taken.path, taken.digest)


PRIVATE = [".env", ".env.local", "server.PEM", "id_rsa", "credentials.json", ".netrc", "secrets.yaml"]


@pytest.mark.parametrize("checkout", [True, False], ids=["checkout", "no checkout"])
@pytest.mark.parametrize("name", PRIVATE)
def test_a_file_of_passwords_that_nobody_committed_is_refused_by_name(package, tmp_path, name, checkout):
    (package / "deep").mkdir()
    (package / "deep" / name).write_text("password")
    if checkout:
        git(package.parent, "init", "-q")
    fix = f"have git ignore it: `echo {name} >> .gitignore`" if checkout else "move it elsewhere"
    with pytest.raises(InputError, match=f"code={package}/deep/{name}: .* a copy goes with the run; {fix}"):
        snapshot.take("rotnet", tmp_path / "runs")
    assert not list(tmp_path.glob("runs/.code/*"))


def test_one_that_is_ignored_stays_and_one_that_is_committed_goes_along(package, tmp_path):
    (package / ".gitignore").write_text(".env\n")
    (package / "example.pem").write_text("public")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    (package / ".env").write_text("password")
    assert contents(snapshot.take("rotnet", tmp_path / "runs")).keys() == {
        "toycode/__init__.py", "toycode/.gitignore", "toycode/example.pem"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("said", "taken"), [("y\n", True), ("yes\n", True), ("n\n", False), ("\n", False), ("", False)], ids=repr
)
def test_at_a_terminal_a_person_is_asked(package, tmp_path, monkeypatch, capsys, said, taken):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    (package / ".env").write_text("password")
    monkeypatch.setattr("sys.stdin", Terminal(said))
    if taken:
        assert "toycode/.env" in contents(snapshot.take("rotnet", tmp_path / "runs"))
    else:
        with pytest.raises(InputError, match="nobody has committed it"):
            snapshot.take("rotnet", tmp_path / "runs")
    shown = capsys.readouterr()
    assert f"{package}/.env: it is called like a file of passwords" in shown.err
    assert shown.out == ""  # where it goes into a file, the file holds the answer alone
