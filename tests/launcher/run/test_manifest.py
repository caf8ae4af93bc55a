"""What a manifest names is read if it is a file, and never waited for or followed."""

import os

import pytest

from launcher.run.files import write_json
from launcher.run.manifest import digest, sha256, verify


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
@pytest.mark.parametrize("name", ["shared.safetensors", "manifest.json"])
def test_what_is_no_file_does_not_verify(tmp_path, kind, name):
    path, elsewhere = tmp_path / "step_00000001", tmp_path / "elsewhere"
    path.mkdir()
    (path / "shared.safetensors").write_bytes(b"")
    files = {"shared.safetensors": {"size": 0, "sha256": sha256(path / "shared.safetensors")}}
    write_json(path / "manifest.json", {"step": 1, "digest": digest(files), "files": files})
    assert verify(path) == ""
    (path / name).rename(elsewhere)
    {"pipe": os.mkfifo, "link": lambda file: file.symlink_to(elsewhere), "folder": os.mkdir}[kind](path / name)
    assert "it is not a plain file" in verify(path) or (kind == "folder" and "bytes, not 0" in verify(path))
