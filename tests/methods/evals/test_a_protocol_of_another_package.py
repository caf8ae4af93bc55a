"""A protocol that an installed package registers is one like ours: found behind them, refused by name, and run from a
copy of its code. One that is broken is a line to whoever asks for it, and nothing to anybody else."""

import importlib.util
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sklearn.neighbors import NearestCentroid

from launcher.runtime.dist import World
from launcher.spec import registry
from methods.evals import spec
from methods.evals.spec import PROTOCOLS

PLUGIN = Path(__file__).parents[2] / "plugin"
BROKEN = """
from dataclasses import dataclass

from methods.evals.settings import Settings


@dataclass
class Other(Settings):
    name, title = "other", "another name"


class Plain:
    pass


@dataclass
class Cluster(Settings):
    name, title = "cluster", "a group of the launcher"


@dataclass
class Train(Settings):
    name, title = "train", "a split"


@dataclass
class Needy(Settings):
    neighbours: int
    name, title = "needy", "a setting without a default"
"""
ALONE = """
from dataclasses import dataclass

from methods.evals.settings import Settings


@dataclass
class Alone(Settings):
    name, title = "alone", "nothing beside it"
"""


@pytest.fixture(scope="module")
def installed(sslrun, tmp_path_factory):
    """The command line where tests/plugin and a package of broken protocols are installed. Its processes are started
    as a person would: those that are warm have looked for protocols already."""
    site = tmp_path_factory.mktemp("site")
    making = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "egg_info", "--egg-base", str(site)]
    subprocess.run(making, cwd=PLUGIN, check=True, capture_output=True, timeout=120)
    package, info = site / "brittle", site / "brittle-1.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").touch()
    (package / "spec.py").write_text(BROKEN)
    (package / "protocol.py").touch()
    (site / "bare").mkdir()
    (site / "bare" / "__init__.py").touch()
    (site / "bare" / "spec.py").write_text(ALONE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brittle\nVersion: 1\n")
    points = {"gone": "brittle.nowhere:Gone", "renamed": "brittle.spec:Other", "alone": "bare.spec:Alone"}
    points |= {name: f"brittle.spec:{name.title()}" for name in ("plain", "cluster", "train", "needy")}
    lines = [f"{name} = {value}\n" for name, value in points.items()]
    (info / "entry_points.txt").write_text(f"[sslrun.protocols]\n{''.join(lines)}")
    where = sslrun.where(PYTHONPATH=os.pathsep.join([str(PLUGIN), str(site)]))
    return lambda *words, code=0: where(*words, code=code, cold=True)


def test_it_judges_beside_ours_from_a_copy_of_its_code(installed, evaluated):
    wanted = "protocol=centroids,logistic", "logistic.iterations=2", "centroids.normalise=false", "step=newest"
    said = installed("eval", evaluated.run.path, *wanted, "--json")
    answer = said.json
    assert answer["state"] == "done" and answer["id"].endswith("/evals/centroids+logistic-1")
    assert (Path(answer["path"]) / "code" / "centroids" / "protocol.py").is_file()
    found = evaluated.run.summary()["evals"]
    assert found.keys() == {"centroids(normalise=false)", "logistic(iterations=2)"}
    assert 0 < found["centroids(normalise=false)"]["top1"] <= 100
    log = (Path(answer["path"]) / "logs" / "rank0.log").read_text()
    assert log.count("features, train: 0 images restored") == 1, "the features are extracted once for both"
    assert "nearest class mean (normalise=false), top-1" in " ".join(said.err.split())


@pytest.mark.parametrize("normalise", [True, False])
def test_it_is_scikit_learns(monkeypatch, normalise):
    monkeypatch.syspath_prepend(str(PLUGIN))
    from centroids.protocol import score
    from centroids.spec import Centroids

    torch.manual_seed(0)
    labels = {split: torch.arange(90) % 5 for split in ("train", "test")}
    features = {split: torch.randn(90, 4) + 0.5 * labels[split][:, None] for split in labels}
    subject = SimpleNamespace(
        features=lambda split: (features[split], labels[split]),
        classes=6,  # of one there are no images
        sum=lambda values: values,
        job=SimpleNamespace(world=World(0, 1, torch.device("cpu"))),
    )
    given = {k: v / v.norm(dim=1, keepdim=True) if normalise else v for k, v in features.items()}
    theirs = NearestCentroid().fit(given["train"], labels["train"]).score(given["test"], labels["test"])
    assert score(subject, Centroids(normalise=normalise)) == {"top1": pytest.approx(100 * theirs, abs=0.01)}


def test_what_is_broken_is_a_line_to_whoever_asks_for_it(installed, evaluated, one_line):
    def said(*words: str) -> str:
        return one_line(installed("eval", evaluated.run.path, *words, "step=newest", code=2))

    line = said("protocol=gone")
    assert "protocol=gone: brittle.nowhere:Gone cannot be imported: No module named 'brittle.nowhere'" in line
    assert "install a brittle that is made for this sslrun" in line
    assert "protocol=renamed: brittle.spec:Other: its name is 'other'; mend the package" in said("protocol=renamed")
    assert "protocol=plain: brittle.spec:Plain: it is no dataclass over" in said("protocol=plain")
    for name in ("cluster", "train"):
        reason = f"brittle.spec:{name.title()}: the name means something else"
        assert f"protocol={name}: {reason}" in said(f"protocol={name}")
    assert "protocol=needy: brittle.spec:Needy: it has no defaults: " in said("protocol=needy")
    assert "protocol=alone: bare.spec:Alone: there is no protocol.py beside it" in said("protocol=alone")
    assert "did you mean centroids?" in said("protocol=centroid")
    # Work that is kept on disk is numbered in this order.
    assert said().endswith(f"say protocol=NAME, one of {', '.join(PROTOCOLS)}, centroids")
    asked = "plan", "method=rotnet", "recipe=tiny"
    assert "eval_after=gone: brittle.nowhere:Gone" in one_line(installed(*asked, "eval_after=gone", code=2))
    assert installed(*asked, "eval_after=[knn,centroids]", "--json").json["nodes"] == 1


def test_one_of_ours_stays_ours_where_a_package_has_its_name(monkeypatch):
    theirs = EntryPoint("knn", "centroids.spec:Centroids", registry.PROTOCOLS)
    monkeypatch.setattr(registry, "installed", lambda _: {"knn": theirs})
    found = importlib.util.spec_from_file_location("methods.evals.again", spec.__file__)
    again = importlib.util.module_from_spec(found)
    found.loader.exec_module(again)
    assert again.kind_of("knn") is PROTOCOLS["knn"]
    assert again.BROKEN["knn"].reason == "centroids.spec:Centroids: one of ours has that name"
