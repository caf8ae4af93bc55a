"""What a container must show the ranks is a line to copy, where it does not do so yet."""

import shlex
import subprocess
import sys

import pytest

from launcher.compose import mounts, training

IMAGE = "cluster.srun.container-image=a#b"
OWN = [sys.prefix, sys.base_prefix]  # where ours start the ranks


def spec_of(*words):
    return training.resolve(["method=rotnet", "recipe=tiny", "cluster=generic", *words], planning=True)[0]


def typed(line):
    """The override that a shell makes of it."""
    (word,) = subprocess.run(["bash", "-c", f"printf %s {line}"], capture_output=True, text=True).stdout.split("\n")
    return word


def shown(*words):
    """{what is mounted: where} once the line is typed, too."""
    line = mounts.line(spec_of(*words))
    spec = spec_of(*words, typed(line))
    assert mounts.line(spec) == ""
    return dict(mount.split(":")[:2] for mount in spec.cluster.srun["container-mounts"])


def test_what_lies_on_the_node_itself_needs_no_line(tmp_path):
    assert mounts.line(spec_of()) == mounts.line(spec_of("cluster.python='numactl -N 0 python'")) == ""


def test_all_that_the_ranks_open_is_mounted_where_they_look_for_it(tmp_path):
    runs, data = tmp_path / "my runs", tmp_path / "da'ta"
    data.mkdir()
    words = (IMAGE, f"runs={runs}", "data=image_folder", f"data.path={data}")
    paths = [str(runs), str(data), *OWN]
    assert shown(*words) == {path: path for path in paths}
    assert [*shown(*words, "cluster.python=/inside/python")] == paths[:2]


def test_folders_of_the_nodes_own_and_weights_are_among_them(tmp_path):
    weights = tmp_path / "weights.safetensors"
    spec = spec_of(IMAGE, "cluster.python=python", "data=shards", "data.stage=/local/me", f"runs={tmp_path}/runs")
    assert "/local/me:/local/me" in mounts.line(spec)
    assert "$TMPDIR" not in mounts.line(spec_of(IMAGE, "data=shards", "data.stage='$TMPDIR'"))
    assert not weights.exists()


def test_what_is_mounted_already_stays_and_is_not_asked_for_again(tmp_path):
    words = (IMAGE, f"runs={tmp_path}/runs", "cluster.python=python")
    assert mounts.line(spec_of(*words, f"cluster.srun.container-mounts=[/x:{tmp_path}:ro]")) == ""
    assert mounts.line(spec_of(*words, f"cluster.srun.container_mounts='/y,{tmp_path}'")) == ""
    assert [*shown(*words, f"cluster.srun.container-mounts=[/x:/y,/x:{tmp_path}/run]")] == ["/x", f"{tmp_path}/runs"]


def test_a_folder_that_is_reached_by_a_link_is_mounted_under_both_names(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "runs").symlink_to("there")
    assert [*shown(IMAGE, f"runs={tmp_path}/runs", "cluster.python=python")] == [
        f"{tmp_path}/runs",
        f"{tmp_path}/there/.code",
    ]


@pytest.mark.parametrize("bound", ["", "--bind /x ", "-B /x "])
def test_apptainer_binds_them(tmp_path, bound):
    words = f"cluster.python='apptainer exec {bound}--nv a.sif python'"
    line = mounts.line(spec_of(words, f"runs={tmp_path}/my runs"))
    spec = spec_of(typed(line), f"runs={tmp_path}/my runs")
    assert shlex.split(spec.cluster.python)[:4] == ["apptainer", "exec", "--bind", f"{tmp_path}/my runs"]
    assert mounts.line(spec) == ""


def test_what_its_variables_bind_needs_no_line(tmp_path):
    words = ("cluster.python='env A=1 apptainer --debug exec a.sif python'", f"runs={tmp_path}/runs")
    spec = spec_of(*words, typed(mounts.line(spec_of(*words))))
    assert shlex.split(spec.cluster.python)[4:7] == ["exec", "--bind", f"{tmp_path}/runs"]
    assert mounts.line(spec_of(*words, f"+cluster.environment.APPTAINER_BIND={tmp_path}")) == ""


def test_of_other_commands_the_folders_are_said(tmp_path):
    podman = ("cluster.python='podman run a python'", f"runs={tmp_path}")
    assert mounts.line(spec_of(*podman)) == f"the folders {tmp_path}"
    assert mounts.line(spec_of(*podman, "data=shards", "data.stage=/local")) == f"the folders {tmp_path}, /local"
