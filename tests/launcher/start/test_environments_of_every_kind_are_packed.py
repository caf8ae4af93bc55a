"""What uv and conda make is packed as what venv makes: the copy runs once the original is gone."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.start import packed, unpacked

ROOT = Path(__file__).parents[3]
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
TOLD = "import json, sys, ssl, installed; print(json.dumps([sys.prefix, installed.__file__]))"


@pytest.fixture
def copied(tmp_path) -> Callable[[Path, Path], Path]:
    """`copied(python, environment)`: the folder of the copy, whose interpreter runs without that environment."""

    def copy(python: Path, environment: Path) -> Path:
        archive = packed._Archive(packed.Environment(str(python)), tmp_path / "packed", None)
        disk = tmp_path / "disk"
        disk.mkdir()
        order = {name: archive.about[name] for name in ("digest", "sha256", "bytes", "prefixes")}
        order |= {"archive": str(archive.path / unpacked.ARCHIVE), "folder": str(disk)}
        assert unpacked.lay(order, lambda *_, **__: None)
        environment.rename(tmp_path / "gone")
        folder = unpacked.home(disk) / archive.about["digest"]
        told = subprocess.run([folder / archive.about["python"], "-P", "-c", TOLD], capture_output=True, text=True)
        assert told.returncode == 0, told.stderr
        prefix, module = json.loads(told.stdout)
        assert prefix == str(folder / "env") and module.startswith(f"{prefix}/")
        return folder / "env"

    return copy


def test_what_uv_made(tmp_path, copied, monkeypatch):
    """Its Python is a link to the one that it stands on, and packages may be links to its cache."""
    uv = shutil.which("uv") or ROOT / ".uv" / "bin" / "uv"
    if not os.path.exists(uv):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no uv, in PATH or in .uv")
    wheel = tmp_path / "installed-1-py3-none-any.whl"
    about = "installed-1.dist-info/"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("installed.py", "")
        file.writestr(f"{about}METADATA", "Metadata-Version: 2.1\nName: installed\nVersion: 1\n")
        file.writestr(f"{about}WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{about}RECORD", "")
    environment = tmp_path / "env"
    python = environment / "bin" / "python"
    install = ["pip", "install", "--offline", "--no-deps", "--link-mode=symlink", f"--python={python}", wheel]
    for words in (["venv", "--offline", f"--python={sys._base_executable}", environment], install):
        variables = {**os.environ, "UV_CACHE_DIR": str(tmp_path / "cache")}
        subprocess.run([uv, "--quiet", "--no-config", *words], env=variables, check=True)
    (module,) = environment.glob("lib/python*/site-packages/installed.py")
    assert module.is_symlink() and python.is_symlink()
    # What it stands on stays where it is, for want of time: what venv made stands on it, too.
    monkeypatch.setattr(packed, "SYSTEM", re.compile(f"{packed.SYSTEM.pattern}|{re.escape(sys.base_prefix)}(/.*)?"))
    env = copied(python, environment)
    (module,) = env.glob("lib/python*/site-packages/installed.py")
    assert not module.is_symlink()


def test_what_conda_made(tmp_path, copied):
    """It stands on nothing, and holds what it was installed from, and other environments."""
    environment = tmp_path / "miniforge3"
    library, python = environment / f"lib/python{VERSION}", environment / f"bin/python{VERSION}"
    library.mkdir(parents=True)
    python.parent.mkdir()
    shutil.copy2(sys._base_executable, python)
    (python.parent / "python").symlink_to(python.name)
    for each in Path(sys.base_prefix, f"lib/python{VERSION}").iterdir():
        if each.name not in ("site-packages", "dist-packages"):
            (library / each.name).symlink_to(each)
    ask = "import site; print(site.getsitepackages()[0])"
    site = Path(subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True).stdout.strip())
    assert site.is_relative_to(environment)
    module = f"{site.relative_to(environment)}/installed.py"
    kept = ("conda-meta/history", "etc/conda/activate.d/cuda.sh", "bin/say", module)
    left = ("pkgs/python/bin/python", "envs/other/bin/python", "conda-bld/work/file")
    for name in (*kept, *left):
        (environment / name).parent.mkdir(parents=True, exist_ok=True)
        (environment / name).write_text(f"#!{environment}/bin/python\n")
    env = copied(environment / "bin" / "python", environment)
    assert all((env / name).is_file() for name in kept) and not any((env / name).exists() for name in left)
    assert {each.name for each in env.iterdir()}.isdisjoint({"pkgs", "envs", "conda-bld"})
    assert (env / "bin" / "say").read_text() == f"#!{env}/bin/python\n"
