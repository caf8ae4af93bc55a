"""What is installed is looked through once, and only where a package registers something: it takes a hundredth of a
second, and a plan may ask for every method."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from launcher.spec import registry

LISTED = "[sslrun.methods]\nelsewhere = elsewhere.spec:METHOD\n"


@pytest.fixture
def anew():
    def forget():
        for known in vars(registry).values():
            if hasattr(known, "cache_clear"):
                known.cache_clear()

    forget()
    yield
    forget()


def packed(folder, kind):
    """A package that registers a method, as it is installed: what stands on the path for it."""
    about = {"METADATA": "Metadata-Version: 2.1\nName: elsewhere\nVersion: 1\n", "entry_points.txt": LISTED}
    names = {"dist-info": "elsewhere-1.dist-info", "egg-info": "elsewhere.egg-info", "zip": "elsewhere-1.dist-info"}
    if kind == "zip":
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            for name, text in about.items():
                archive.writestr(f"{names[kind]}/{name}", text)
        return folder / "all.zip"
    place = folder if kind != "egg" else folder / "elsewhere-1-py3.egg"
    inside = place / names.get(kind, "EGG-INFO")
    inside.mkdir(parents=True)
    for name, text in about.items():
        (inside / name.replace("METADATA", "METADATA" if kind == "dist-info" else "PKG-INFO")).write_text(text)
    return place


@pytest.mark.parametrize("kind", ["dist-info", "egg-info", "egg", "zip"])
def test_methods_of_packages_are_found_and_looked_for_once(anew, tmp_path, monkeypatch, kind):
    entry_points, asked = importlib.metadata.entry_points, []
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **of: asked.append(of) or entry_points(**of))
    monkeypatch.syspath_prepend(packed(tmp_path, kind))
    assert "elsewhere" in registry.names()
    for name in {*registry.names()} - {"elsewhere"}:
        assert registry.method(name).name == name
    assert asked == [{"group": "sslrun.methods"}]


def test_who_finds_packages_otherwise_is_asked(anew, monkeypatch):
    class Finder:
        def find_distributions(self, context):
            return []

        def find_spec(self, *_):
            return None

    monkeypatch.setattr(sys, "path", [])
    assert not registry._any_installed()
    registry._any_installed.cache_clear()
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder()])
    assert registry._any_installed()


def test_where_nobody_registers_anything_nothing_is_loaded_to_say_so():
    code = "import sys; from launcher.spec.registry import names; names(); print('importlib.metadata' in sys.modules)"
    root = {**os.environ, "PYTHONPATH": str(Path(registry.__file__).parents[2])}
    alone = [sys.executable, "-S", "-c", code]  # without what is installed here
    assert subprocess.run(alone, capture_output=True, text=True, check=True, env=root).stdout == "False\n"
