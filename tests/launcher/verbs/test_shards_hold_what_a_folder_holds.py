"""`sslrun shards` and runs on what it makes: the run that the folder gives, whatever happens to either on the way."""

import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

TRAIN = ("method=rotnet", "recipe=tiny", "method.epochs=2", "method.log_every=1", "method.checkpoint_every=3")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """150 small pictures in two classes."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(150):
        place = folder / ("cat", "dog")[number % 2]
        place.mkdir(exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (20, 20, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def shards(sslrun, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "shards"
    answer = sslrun("shards", images, folder, "--size-mb", "0.1", "--json")
    assert answer.json["images"] == 150 and answer.json["classes"] == 2 and answer.json["shards"] > 2
    assert answer.json["kept"] == 0 and answer.json["damaged"] == []
    assert f"150 images in {answer.json['shards']} shards: data=shards data.path={folder}" in answer.err
    return folder


def figures(watched):
    """What was logged of each step."""
    told = ("loss", "accuracy", "lr", "knn/trained")
    return {(row["step"], key): row[key] for row in watched.rows() for key in told if key in row}


def test_a_killed_and_resumed_run_on_shards_is_the_run_on_their_folder(
    sslrun, signalled, watched, undisturbed, images, shards, tmp_path
):
    folder = undisturbed(2, (*TRAIN, "data=image_folder", f"data.path={images}"))
    (tmp_path / "disk").mkdir()
    data = ("data=shards", f"data.path={shards}", f"data.stage={tmp_path / 'disk'}")
    launch = (*TRAIN, *data, "method.workers=1", "tasks_per_node=2", f"runs={watched.runs}")
    assert signalled(*launch, number=signal.SIGKILL, after=4).code and watched.gone()
    sslrun("resume", watched.path)
    assert figures(watched) == figures(type(watched)(folder.parent))
    assert len(figures(watched)) > 20
    assert len(list((tmp_path / "disk").glob("*/*.tar"))) == len(list(shards.glob("*.tar")))


def test_the_same_command_finds_it_done_and_another_is_refused(sslrun, one_line, images, shards):
    again = sslrun("shards", images, shards, "--size-mb", "0.1", "--json").json
    assert again["kept"] == again["shards"]
    assert "a conversion with size_mb=0.1" in one_line(sslrun("shards", images, shards, code=2))
    assert one_line(sslrun("shards", images, "--json", code=2)).startswith(
        f"sslrun: FOLDER='{images}': no .tar file in it"
    )


def test_data_that_cannot_be_trained_on_are_refused_before_a_run(sslrun, one_line, shards, tmp_path):
    (tmp_path / "empty").mkdir()
    launch = (*TRAIN, f"runs={tmp_path / 'runs'}", "data=shards")
    line = one_line(sslrun(*launch, f"data.path={tmp_path / 'empty'}", code=2))
    assert "data.path=" in line and "no .tar file in it; give a folder of shards" in line
    other = shutil.copytree(shards, tmp_path / "other")
    (other / "shard-000001.tar").unlink()
    line = one_line(sslrun(*launch, f"data.path={other}", code=2))
    assert "'shard-000001.tar' is gone" in line and f"`sslrun shards {other}` makes an index" in line
    assert not (tmp_path / "runs").exists()


def test_a_damaged_tar_is_named(sslrun, shards, tmp_path):
    other = shutil.copytree(shards, tmp_path / "other")
    os.truncate(other / "shard-000001.tar", 30_000)
    answer = sslrun("shards", other, "--json")
    assert answer.json["damaged"] == [["shard-000001.tar", "damaged at byte 30000"]]
    assert "damaged: shard-000001.tar: damaged at byte 30000; what can be read of it" in answer.err
