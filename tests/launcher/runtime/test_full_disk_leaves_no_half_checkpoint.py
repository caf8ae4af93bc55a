"""A disk that fills up: one line, no half checkpoint, and the run goes on once there is room."""

import shutil
import subprocess

import pytest

pytestmark = pytest.mark.fault


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(megabytes)` mounts a real file system of that size, and calling it again resizes it."""
    folder, mounted = tmp_path / "disk", []
    folder.mkdir()

    def size(megabytes: float):
        how = f"remount,size={int(megabytes * 1e6)}" if mounted else f"size={int(megabytes * 1e6)}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting a small file system is not permitted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    if not shutil.which("mount"):
        pytest.skip("there is no mount command here")
    yield size
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
def test_it_stops_with_one_line_and_resumes_when_there_is_room(sslrun, one_line, small_disk, journey, undisturbed):
    from launcher.runtime.checkpoint import verify

    disk = small_disk(9)  # a checkpoint takes 3.9 MB, and the copy of the code about as much: there is room for one
    line = one_line(sslrun(*journey, f"runs={disk}", code=2), inside=True)
    assert all(part in line for part in ("runs=", "No space left on device", "free some space", "sslrun resume"))

    run = next(disk.glob("*/spec.json")).parent
    assert not list((run / "checkpoints").glob(".saving-*"))
    saved = sorted((run / "checkpoints").iterdir())
    assert [path.name for path in saved] == ["step_00000003"]
    assert verify(saved[0]) == ""
    assert saved[0].name in line

    small_disk(100)
    sslrun("resume", run)
    assert sslrun.show(run)["state_digest"] == sslrun.show(undisturbed())["state_digest"]


def test_a_disk_too_small_for_one_checkpoint_is_refused_at_once(sslrun, one_line, small_disk, journey):
    disk = small_disk(2)
    line = one_line(sslrun(*journey, f"runs={disk}", code=2))
    assert all(part in line for part in ("runs=", "a checkpoint takes", "choose another folder with runs=PATH"))
    assert not list(disk.iterdir())
