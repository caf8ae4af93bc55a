"""Folders with names that shells, Slurm and Hydra read their own way: they arrive to the letter, or are refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RUN = ("method=rotnet", "recipe=tiny", "cluster=fake", "tasks_per_node=1", "cluster.cpus_per_task=1")
# One leading dash, every special character of bash, what Slurm puts other words in place of, and 150 characters.
ODD = "-a b'c\"d;$(touch x)`touch x`&&touch x|*?[1]{a,b}~#!=<>,% %% %x %N %u %2t%5j éß日本 $HOME $0 !! @ "
ODD = ODD.ljust(150, "x")
REFUSED = {
    "back\\slash": "backslash",
    "co:lon": "colon",
    "%j": "in place of %j",
    "%%A": "in place of %A",
    "line\nbreak": r"cannot carry '\n'",
    "bell\a": r"cannot carry '\x07'",
    "sep\u2028arator": r"cannot carry '\u2028'",
}


def quoted(path: Path) -> str:
    """As Hydra's grammar takes any text."""
    return "'" + str(path).replace("'", "\\'") + "'"


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / ("images" + ODD)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 24, 24, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        name = folder / f"{ODD[:60]}{number % 2}" / f"{ODD[:100]}{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(name)
    return folder


def test_an_odd_folder_is_carried_to_the_end_of_the_training(
    cluster, slurm_sslrun, config_dir, images, tmp_path, settled
):
    sslrun = slurm_sslrun(cluster)
    here = tmp_path / ("here" + ODD)
    here.mkdir()
    runs = here / ODD
    words = (*RUN, "--config-dir", config_dir(cluster), f"runs={quoted(runs)}", "--json")
    data = ("data=image_folder", f"data.path={quoted(images)}")
    one = sslrun(*words, *data, "method.epochs=1", cwd=here).json["path"]
    points = sslrun(*words, "--multirun", "seed=0,1", "method.epochs=1", cwd=here).json["runs"]
    for path in (one, *(point["path"] for point in points)):
        assert Path(path).parent == runs
        assert settled(sslrun, path)["state"] == "done"
    assert {p.name for p in (Path(one) / "logs").iterdir()} == {"rank0.log"}
    assert list(runs.glob(".arrays/*/slurm-*_1.log"))
    # Relative to where one stands, and without one.
    assert "3 done" in sslrun("status", f"runs={ODD}", cwd=here).out
    assert "done" in sslrun("show", Path(one).name, f"runs={ODD}", cwd=here).out
    strays = [p for p in here.rglob("*") if p.name == "x"]
    assert strays == [] and not (Path.cwd() / "x").exists()
    assert set(tmp_path.iterdir()) == {here, images}


def test_what_cannot_be_carried_is_refused(cluster, slurm_sslrun, config_dir, tmp_path):
    sslrun = slurm_sslrun(cluster)
    words = (*RUN, "--config-dir", config_dir(cluster))
    for name, reason in REFUSED.items():
        answer = sslrun(*words, f"runs={quoted(tmp_path / 'runs')[:-1]}/{name}'", code=2)
        assert answer.err.splitlines() == [answer.complaint]
        assert answer.complaint.startswith("sslrun: runs=") and reason in answer.complaint
        assert "leave it out" in answer.complaint or "choose another folder" in answer.complaint
    assert not (tmp_path / "runs").exists()
    assert cluster.run("squeue", "--noheader").stdout == ""


def test_a_folder_that_is_gone_is_one_line(cluster, slurm_sslrun, config_dir, tmp_path):
    sslrun = slurm_sslrun(cluster)
    gone = tmp_path / "gone"
    gone.mkdir()
    command = (Path(sys.executable).with_name("sslrun"), *RUN, "--config-dir", config_dir(cluster), "runs=runs")
    script = ("sh", "-c", 'rmdir "$PWD"; exec "$@"', "sh")
    answer = subprocess.run([*script, *command], cwd=gone, env=sslrun.environment, capture_output=True, text=True)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1 and answer.stderr.startswith("sslrun: ")
