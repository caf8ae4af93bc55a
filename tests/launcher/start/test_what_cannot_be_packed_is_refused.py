"""An environment that cannot be packed, or changes meanwhile: one line, and nothing is left."""

import errno
import os
import sys

import pytest
from environments import environment_at, packages

from launcher.errors import InputError
from launcher.start import packed


def test_what_changes_while_it_is_packed_is_not_taken(tmp_path):
    python = environment_at(tmp_path / "env")

    def install(stage: str, *_: object) -> None:
        if stage.startswith("packing"):
            (packages(python) / "late.py").touch()

    with pytest.raises(InputError, match="changed while it was packed; the same command again"):
        packed._Archive(packed.Environment(str(python)), tmp_path / "packed", install)
    assert not list((tmp_path / "packed").iterdir())


def test_what_vanishes_or_shrinks_while_it_is_packed_is_not_laid_to_the_folder_of_runs(runs):
    python = environment_at(runs.folder.parent / "env")
    run = runs.make(python=str(python), local_env="/scratch")
    last = packages(python) / "zz.py"
    for harm in (lambda: last.unlink(missing_ok=True), lambda: last.write_text("")):
        last.write_text("name = 'zz'\n")
        with pytest.raises(InputError, match=r"^cluster.local_env: \S*/env changed while it was packed; the same"):
            packed.into([run], lambda stage, *_, harm=harm: harm() if stage.startswith("packing") else None)
    assert not run.history().last("packed")


def test_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    python = environment_at(tmp_path / "env")
    environment = packed.Environment(str(python))
    fails = OSError(errno.EACCES, os.strerror(errno.EACCES), "/of/another.py")
    monkeypatch.setattr(packed, "with_own_libraries", lambda *_: (_ for _ in ()).throw(fails))
    with pytest.raises(InputError) as refused:
        packed._Archive(environment, tmp_path / "packed", None)
    said = f"cluster.python={python}: /of/another.py cannot be read (Permission denied); make it readable, or leave "
    assert str(refused.value) == f"{said}cluster.local_env out"


def test_what_cannot_be_packed_is_refused_in_a_line(tmp_path, monkeypatch):
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 1\n")
    silent.chmod(0o755)
    for python, why in (
        (script, "it is a script"),
        (silent, "it does not say"),
        (tmp_path / "none", "it does not say"),
    ):
        with pytest.raises(InputError, match=f"^cluster.python={python}: {why}"):
            packed.Environment(str(python))
    monkeypatch.setattr(packed, "SYSTEM", packed.re.compile(".*"))
    with pytest.raises(InputError, match="which each node has of its own; name the interpreter of an environment"):
        packed.Environment(sys.executable)
