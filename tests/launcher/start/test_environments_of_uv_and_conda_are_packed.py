"""Environments as uv and conda make them, packed and unpacked on a node: their interpreter runs from the copy."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.start import packed, unpacked


def copied(environment: packed.Environment, folder: Path) -> Path:
    """The interpreter of a copy, which stands on the same as `environment` does: that is large."""
    base = next((root for root, place in environment.roots.items() if place == "base"), None)
    environment.roots.pop(base, None)
    archive = packed._Archive(environment, folder / "packed", None)
    about = {name: archive.about[name] for name in ("digest", "sha256", "bytes", "prefixes")}
    paths = {"archive": str(archive.path / unpacked.ARCHIVE), "folder": str(folder)}
    assert unpacked.lay({**about, **paths}, lambda *_, **__: None)
    target = unpacked.home(folder) / archive.about["digest"]
    if base:
        (target / "base").symlink_to(base)
    return target / archive.about["python"]


def prefixes(python: Path) -> list[str]:
    told = "import json, sys, one; print(json.dumps([sys.prefix, sys.base_prefix, one.__file__]))"
    return json.loads(subprocess.run([python, "-P", "-c", told], env={}, capture_output=True, check=True).stdout)


def test_an_environment_of_uv_is_taken_along(tmp_path):
    """Packages are links into its cache, as where that is on the same disk."""
    own = Path(__file__).parents[3] / ".uv" / "bin" / "uv"
    uv = shutil.which("uv") or (own if own.exists() else None)
    if not uv:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no uv to make an environment with")
    made = [uv, "venv", "--quiet", "--offline", "--no-config", "--python", sys._base_executable, tmp_path / "env"]
    subprocess.run(made, check=True)
    python = tmp_path / "env" / "bin" / "python"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "one.py").touch()
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    (site / "one.py").symlink_to(tmp_path / "cache" / "one.py")
    environment = packed.Environment(str(python))
    stands_on_another = "base" in environment.roots.values()
    copy = copied(environment, tmp_path)
    shutil.rmtree(tmp_path / "env")
    shutil.rmtree(tmp_path / "cache")
    prefix, base, one = prefixes(copy)
    target = copy.parents[2]
    assert prefix == f"{target}/env" and one.startswith(f"{prefix}/lib/")
    assert base == (f"{target}/base" if stands_on_another else sys.base_prefix)


def test_an_environment_of_conda_is_taken_along_without_what_it_keeps_for_others(tmp_path):
    """It is its own base: an interpreter, and beside it packages as they were fetched and other environments."""
    conda = tmp_path / "conda"
    for kept in ("conda-meta/history", "pkgs/python-3.11/big", "envs/other/bin/python", "conda-bld/x"):
        (conda / kept).parent.mkdir(parents=True)
        (conda / kept).touch()
    python = conda / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    python.parent.mkdir()
    shutil.copy(os.path.realpath(sys._base_executable), python)
    site = conda / "lib" / python.name / "site-packages"
    site.mkdir(parents=True)
    (site / "one.py").touch()
    standard = Path(os.__file__).parent
    for each in (*standard.iterdir(), *Path(sys.base_prefix, "lib").glob("libpython*")):
        folder = site.parent if each.parent == standard else site.parents[1]
        if each.name not in ("site-packages", "dist-packages", "__pycache__"):
            (folder / each.name).symlink_to(each)
    (python.parent / "tool").write_text(f"#!{python}\n")
    environment = packed.Environment(str(python))
    assert environment.roots == {conda: "env"}
    copy = copied(environment, tmp_path)
    shutil.rmtree(conda)
    target = copy.parents[1]
    assert prefixes(copy) == [str(target), str(target), f"{target}/lib/{python.name}/site-packages/one.py"]
    assert {path.name for path in target.iterdir()} == {"bin", "lib", "conda-meta"}
    assert (copy.parent / "tool").read_text() == f"#!{copy}\n"
