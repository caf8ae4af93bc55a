"""Bad input: exit code 2 and one line that names the field and the fix; never a traceback."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

TINY = ("method=deepercluster", "recipe=tiny")
FOLDER = (*TINY, "data=image_folder")

# what is typed -> what the line must hold: the field, and the fix
LAUNCHES = {
    ("method=deepcluster",): ("method=deepcluster", "did you mean deepercluster?"),
    ("recipe=tiny",): ("method", "deepercluster"),
    (*TINY, "sede=3"): ("sede=3", "did you mean seed?"),
    (*TINY, "method.clustres=3"): ("method.clustres=3", "did you mean method.clusters?"),
    (*TINY, "data=auto"): ("data=auto", "image_folder"),
    (*TINY, "data.imges=3"): ("data.imges=3", "did you mean data.images?"),
    (*TINY, "cluster.partitoin=gpu"): ("cluster.partitoin=gpu", "did you mean cluster.partition?"),
    (*TINY, "recipe=tinny"): ("recipe=tinny", "did you mean tiny?"),
    (*TINY, "data=photo"): ("data=photo", "did you mean photos?"),
    (*TINY, "cluster=lokal"): ("cluster=lokal", "did you mean local?"),
    (*TINY, "method.backbone=vgg16"): ("method.backbone=vgg16", "did you mean vgg16_bn?"),
    (*TINY, "method.backbone=vit_smal_16"): ("method.backbone=vit_smal_16", "did you mean vit_small_16?"),
    (*TINY, "method.clusters=-4"): ("method.clusters=-4", "give a positive"),
    (*TINY, "method.super_clusters=0"): ("method.super_clusters=0", "give a positive"),
    (*TINY, "method.global_batch=-64"): ("method.global_batch=-64", "give a positive"),
    (*TINY, "method.image_size=0"): ("method.image_size=0", "give a positive"),
    (*TINY, "method.epochs=-1"): ("method.epochs=-1", "give a positive"),
    (*TINY, "method.workers=-1"): ("method.workers=-1", "give 0 or more"),
    (*TINY, "data.images=-5"): ("data.images=-5", "give"),
    (*TINY, "data.patch=0"): ("data.patch=0", "give"),
    (*TINY, "nodes=0"): ("nodes=0", "give a positive"),
    (*TINY, "tasks_per_node=-2"): ("tasks_per_node=-2", "give a positive"),
    (*TINY, "seed=-1"): ("seed=-1", "give 0 or more"),
    (*TINY, "method.clusters=4.5"): ("method.clusters", "4.5", "integer"),
    (*TINY, "method.global_batch=many"): ("method.global_batch", "many", "integer"),
    (*TINY, "method.lr=fast"): ("method.lr", "fast", "float"),
    (*TINY, "nodes=2.5"): ("nodes", "2.5", "integer"),
    (*TINY, "seed=x"): ("seed", "x", "integer"),
    (*TINY, "method.clusters=153"): ("method.clusters=153", "304 images", "at most 152"),
    (*TINY, "method.global_batch=100"): ("method.global_batch=100", "4m = 8", "use 96 or 104"),
    (*TINY, "method.global_batch=640"): ("method.global_batch=640", "304 images", "at most 304"),
    (*TINY, "tasks_per_node=3"): ("tasks_per_node", "4m = 8", "use 1, 2, 4, 8, 16, 32, 64 ranks"),
    (*TINY, "nodes=2", "cluster=local"): ("nodes=2", "tasks_per_node"),
    ("method=dino", "recipe=tiny", "method.image_size=40000"): ("cluster=local", "GB of memory", "--anyway"),
    ("--multirun", *TINY, "method.image_size=32,200000"): ("cluster=local", "GB of memory", "--anyway"),
    (*TINY, "nodes=8-4"): ("nodes=8-4", "use nodes=4-8"),
    (*TINY, "nodes=1-2", "cluster=local"): ("nodes=1-2", "tasks_per_node"),
    (*TINY, "cluster.spare_nodes=1"): ("cluster.spare_nodes=1", "cluster=local is this one machine"),
    (*TINY, "method.lr=0.1,0.2"): ("method.lr=0.1,0.2", "--multirun"),
    (*TINY, "method.lr=range(1,3)"): ("method.lr=range(1,3)", "--multirun"),
    (*TINY, "lr"): ("lr", "key=value"),
    (*TINY, "data=image_folder"): ("data.path", "give a folder of images"),
    (*FOLDER, "data.path={tmp}/nowhere"): ("data.path", "nowhere", "does not exist", "give a folder of images"),
    (*FOLDER, "data.path={tmp}/empty"): ("data.path", "empty", "no image found", ".jpg"),
    (*FOLDER, "data.path={tmp}/file"): ("data.path", "file", "is not a folder", "give a folder"),
    (*TINY, "data=cifar10", "data.path={tmp}/empty"): ("data.path", "data_batch_1.bin", "cifar-10-binary.tar.gz"),
    (*TINY, "init_from=nothing-like-it"): ("init_from=nothing-like-it", "there is no such run", "runs there: "),
    (*TINY, "init_from={tmp}/weights.pkl"): ("init_from", "weights.pkl", ".safetensors", "sslrun export"),
    (*TINY, "runs={tmp}/file"): ("runs=", "file", "choose another folder with runs=PATH"),
    (*TINY, "runs={tmp}/file/deeper"): ("runs=", "file", "choose another folder with runs=PATH"),
    (*TINY, "runs=/proc/runs"): ("runs=/proc", "choose another folder with runs=PATH"),
    ("frobnicate", *TINY): ("verb=frobnicate", "known: ", "resume"),
    ("resum", "a-run"): ("verb=resum", "did you mean resume?"),
    ("show",): ("RUN", "sslrun show --help"),
    ("show", "nothing-like-it"): ("RUN=nothing-like-it", "there is no such run", "runs there: "),
    ("resume", "nothing-like-it"): ("RUN=nothing-like-it", "there is no such run"),
    ("cancel", "nothing-like-it"): ("RUN=nothing-like-it", "there is no such run"),
    ("logs", "nothing-like-it"): ("RUN=nothing-like-it", "there is no such run"),
    ("export", "nothing-like-it"): ("RUN=nothing-like-it", "there is no such run"),
    ("status", "seed=3"): ("seed=3", "runs=FOLDER"),
    ("status", "--jsn"): ("--jsn", "sslrun status --help"),
    ("plan", *TINY, "method.lr=inf"): ("method.lr=inf", "give"),
    ("plan", *TINY, "method.crop_scale=3"): ("method.crop_scale", "give"),
    ("plan", *TINY, "+method.clustres=3"): ("method.clustres", "did you mean method.clusters?"),
    ("plan", *TINY, "cluster.kind=slrum"): ("cluster.kind=slrum", "local"),
    ("plan", *TINY, "--config-dir", "{tmp}/nowhere"): ("--config-dir", "nowhere", "give the folder"),
}


@pytest.fixture(scope="module")
def answers(sslrun, tmp_path_factory):
    """What each of LAUNCHES got, from two at a time: most of their time is starting up."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "empty").mkdir()
    (folder / "file").write_text("not a folder")
    (folder / "weights.pkl").write_bytes(b"pickled")
    with ThreadPoolExecutor(2) as pool:
        yield {
            typed: pool.submit(sslrun, *(word.format(tmp=folder) for word in typed), code=None, cwd=folder)
            for typed in LAUNCHES
        }
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize(("typed", "holds"), LAUNCHES.items(), ids=lambda part: " ".join(part)[-60:])
def test_what_can_be_known_before_a_run_starts(answers, one_line, typed, holds):
    line = one_line(answers[typed].result())  # and no `run ... in ...`: nothing was started
    assert all(part in line for part in holds), line


def test_json_tells_the_same_to_scripts(sslrun, one_line, tmp_path):
    answer = sslrun("method=deepcluster", "--json", code=2, cwd=tmp_path)
    assert answer.json == {"error": one_line(answer).removeprefix("sslrun: "), "exit_code": 2}


def test_a_broken_value_cannot_make_it_two_lines(sslrun, one_line, tmp_path):
    one_line(sslrun(*FOLDER, f"data.path='{tmp_path}/two\nlines'", code=2, cwd=tmp_path))


def test_init_from_a_run_with_another_backbone(sslrun, one_line, undisturbed, tmp_path):
    run = undisturbed()
    vgg = ("method.backbone=vgg16_bn", "method.image_size=32")
    line = one_line(sslrun(*TINY, *vgg, f"init_from={run}", f"runs={tmp_path}", code=2))
    assert all(part in line for part in ("init_from=", "has the backbone small_vgg", "method.backbone=small_vgg"))


def test_init_from_a_run_without_a_checkpoint(sslrun, one_line, undisturbed, tmp_path):
    run = tmp_path / undisturbed().name
    run.mkdir()
    (run / "spec.json").write_bytes((undisturbed() / "spec.json").read_bytes())
    for name, said in ((run, "nobody runs it; "), (f"{run}@newest", "has no checkpoint yet; ")):
        line = one_line(sslrun(*TINY, f"init_from={name}", f"runs={tmp_path}", code=2))
        assert f"{said}`sslrun resume {run}` first" in line, line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_runs_folder_without_permission(sslrun, one_line, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    line = one_line(sslrun(*TINY, f"runs={tmp_path}/closed", code=2))
    assert "runs=" in line
    assert "choose another folder with runs=PATH" in line


# -- found inside a run ------------------------------------------------------------------------------------------------


def photographs(folder, count):
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (24, 24, 3), np.uint8)).save(
            folder / f"{number}.png"
        )
    return folder


def test_a_folder_with_only_broken_images(sslrun, one_line, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(80):
        (tmp_path / "images" / f"{number}.jpg").write_bytes(b"not a picture")
    line = one_line(sslrun(*FOLDER, f"data.path={tmp_path}/images", f"runs={tmp_path}/runs", code=2), inside=True)
    assert all(part in line for part in ("data", "can be decoded", ".jpg", "give a folder with readable images"))


def test_more_clusters_than_a_folder_has_images(sslrun, one_line, tmp_path):
    folder = photographs(tmp_path / "images", 70)
    line = one_line(
        sslrun(*FOLDER, f"data.path={folder}", "method.clusters=40", f"runs={tmp_path}/runs", code=2), inside=True
    )
    assert all(part in line for part in ("method.clusters=40", "70 images", "at most 35"))


def test_init_from_weights_that_are_damaged(sslrun, one_line, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"\xff" * 100)
    answer = sslrun(*TINY, f"init_from={tmp_path}/weights.safetensors", f"runs={tmp_path}/runs", code=2)
    line = one_line(answer, inside=True)
    assert all(part in line for part in ("init_from=", "weights.safetensors", "cannot be read"))
