"""YAML files of one's own stand on what ships: they may extend any of it, and the command line has the last word."""

import json

import pytest

from launcher.compose.training import for_evaluation, resolve
from launcher.errors import InputError
from launcher.spec.schema import ClusterConfig

LINES = {
    "cluster/mine.yaml": "defaults: [a100_80gb, _self_]\nname: mine\npartition: gpu\n",
    "cluster/bare.yaml": "name: bare\nkind: slurm\ngpus_per_node: 3\n",
    "data/ours.yaml": "defaults: [image_folder, _self_]\npath: /data/ours\n",
    "method/faster.yaml": "defaults: [rotnet, _self_]\nlr: 0.3\n",
}


@pytest.fixture
def own(tmp_path):
    for name, text in LINES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return lambda *words: resolve(list(words), config_dir=tmp_path, planning=True)[0]


def test_a_cluster_extends_one_that_ships(own):
    cluster = own("method=rotnet", "cluster=mine").cluster
    assert (cluster.name, cluster.partition, cluster.gpu_mem_gb) == ("mine", "gpu", 80)


def test_a_cluster_that_extends_none_has_the_schemas_values(own):
    cluster = own("method=rotnet", "cluster=bare").cluster
    assert (cluster.gpus_per_node, cluster.timeout_min) == (3, 1440)


def test_a_cluster_that_names_every_field_is_typed_too(own, tmp_path):
    """As a drill writes the cluster of the run that it drills."""
    fields = {**vars(ClusterConfig(name="whole")), "gpus_per_node": 3}
    (tmp_path / "cluster" / "whole.yaml").write_text(json.dumps(fields))
    spec = own("method=rotnet", "cluster=whole")
    assert spec.cluster.gpus_per_node == 3
    moved = for_evaluation(own("method=rotnet", "cluster=generic"), ["cluster=whole"], config_dir=tmp_path)
    assert vars(moved.cluster) == vars(spec.cluster)


def test_data_extend_a_set_that_ships(own):
    data = own("method=rotnet", "data=ours", "cluster=generic").data
    assert (data.name, data.path) == ("image_folder", "/data/ours")


def test_data_that_extend_none_are_refused_with_what_to_write(own, tmp_path):
    (tmp_path / "data" / "bare.yaml").write_text("name: image_folder\npath: /data/ours\n")
    with pytest.raises(InputError, match=r"data: its YAML extends no data set; begin it with `defaults: \[image_f"):
        own("method=rotnet", "data=bare", "cluster=generic")


def test_a_method_extends_one_that_is_registered(own):
    spec = own("method=faster", "data=ours", "data.path=/elsewhere", "cluster=mine")
    assert (spec.method.name, spec.method.lr) == ("rotnet", 0.3)
    assert (spec.data.path, spec.cluster.partition) == ("/elsewhere", "gpu")


def test_an_evaluation_goes_to_a_cluster_of_ones_own(own, tmp_path):
    moved = for_evaluation(own("method=rotnet", "cluster=generic"), ["cluster=mine", "nodes=1"], config_dir=tmp_path)
    assert (moved.cluster.name, moved.cluster.partition) == ("mine", "gpu")
