"""What a shell hands over is what is meant, whatever a folder is called; or the words to type are said."""

import doctest
import os
import subprocess

import pytest

from launcher.compose import overrides, points, training
from launcher.compose.overrides import parsed, spelled
from launcher.errors import InputError

FOLDER = ["method=rotnet", "recipe=tiny", "data=image_folder"]
ODD = [
    "/data/für", "/data/加卷", "/data/é", "/data/lr=0.1", "/data/a=b=c", "/data/x (old)", "/data/(1)", "/data/a[1]",
    "/data/{x}", "/data/it's", '/data/a"b', "/data/a#1", "/data/a&b;c", "/data/a!b", "/data/a^b`c", "/data/a\\b",
    "/data/a b", "/data/\udcff", "/data/a:b", "/data/50%", "/data/x@y", "/data/🙂", "/data/~", "/data/a(b", "/data/b)",
]  # fmt: skip
COMMAS = [
    "/data/a,b",
    "/data/a,b/c d",
    "/data/x(1),y",
    "/data/ü,加",
    "/data/it's,so",
    "/data/$a,`b`,!c",
    "[a",
    "'a",
    "{a=b",
]
READ = [
    "method.lr=1e-3", "seed=1,2", "method.crop_scale=[0.3,1]", "nodes=2", "data.path='/a b'", "data=photos",
    "cluster.setup=['module load x']", "+cluster.environment.A=x", "data.path=null", "seed=range(0,4)", "~group",
]  # fmt: skip


def path_of(*words):
    return training.resolve([*FOLDER, *words], planning=True)[0].data.path


def typed_in_a_shell(command):
    """The words that bash makes of a line."""
    said = subprocess.run(["bash", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True).stdout
    return [os.fsdecode(word) for word in said.split(b"\0")[:-1]]


@pytest.mark.parametrize("text", READ)
def test_what_hydra_reads_is_left_to_it(text):
    assert spelled(text) == text


def test_a_folder_may_be_called_anything():
    """In one run, as points, and with quotes inside those of the shell, as Hydra's users have them."""
    named = {f"A{number}": path for number, path in enumerate(ODD)}
    for spell in (str, spelled):
        words = [spell(f"+cluster.environment.{name}={path}") for name, path in named.items()]
        spec, _ = training.resolve([*FOLDER, "data.path=/data", *words], planning=True)
        assert spec.cluster.environment == named
    folders = [[f"data.path={path}"] for path in ODD]
    found = points.rows(FOLDER, folders, planning=True)
    assert [point.spec.data.path for point in found] == ODD
    assert path_of(f"data.path={ODD[0]}") == ODD[0]


def test_its_example_is_true():
    assert doctest.testmod(overrides) == (0, 1)


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["data.path=~/images", "runs=~/runs", "cluster.python=~/env/bin/python -X dev"]
    spec, _ = training.resolve([*FOLDER, *words], planning=True)
    assert (spec.data.path, spec.runs) == (f"{tmp_path}/images", f"{tmp_path}/runs")
    assert spec.cluster.python == f"{tmp_path}/env/bin/python -X dev"


@pytest.mark.parametrize("path", COMMAS)
def test_where_it_may_mean_two_things_the_fix_is_what_to_type(path):
    with pytest.raises(InputError) as refusal:
        path_of(f"data.path={path}")
    (word,) = typed_in_a_shell(refusal.value.fix.partition(" type ")[2])
    assert parsed(word).value() == path
    assert path_of(word) == os.path.abspath(path)


def test_several_values_of_a_list_are_a_list():
    for word, listed in (("method.crop_scale=0.3,1", [0.3, 1]), ("eval_after=knn,linear", ["knn", "linear"])):
        with pytest.raises(InputError) as refusal:
            training.resolve([*FOLDER, word], planning=True)
        assert refusal.value.fix.startswith("add --multirun, or for a list type ")
        (word,) = typed_in_a_shell(refusal.value.fix.partition(" type ")[2])
        assert parsed(word).value() == listed
        training.resolve([*FOLDER, word], planning=True)


def test_several_values_of_a_number_have_no_other_meaning():
    for word in ("seed=0,1", "method.lr=0.1,0.2", "method.lr=range(1,3)"):
        with pytest.raises(InputError, match=r"; add --multirun, or give one value$"):
            training.resolve([*FOLDER, word], planning=True)


def test_numbers_are_numbers():
    assert parsed("method.lr=1e-3").value() == 1e-3 and parsed("nodes=1_0").value() == 10
    assert parsed("cluster.additional_parameters.exclusive=true").value() is True


@pytest.mark.parametrize(
    "text",
    [
        "lr", "seed=,", "a b=3", "1x=2", "cluster.srun.=1", "cluster..srun=1", "cluster.srun.a/b=1", "cluster.srun.ä=2",
        "cluster.srun.1a=x", "--mpi=none",
    ],
)  # fmt: skip
def test_what_is_no_override_is_said(text):
    with pytest.raises(InputError, match="not an override; write key=value"):
        parsed(text)


@pytest.mark.parametrize(
    "text, fix",
    {
        "cluster.srun.--mpi=none": "write cluster.srun.mpi=none",
        "+cluster.srun.--mpi=a,b": "write +cluster.srun.mpi=a,b",
        "cluster.srun.--overlap": "write cluster.srun.overlap=VALUE",
        "cluster.srun.-q=true": "write its long name, without dashes",
        "cluster.environment.--AB=1": "write cluster.environment.AB=1",
        "method.-lr=1": "write method.lr=1",
    }.items(),
)
def test_a_name_with_the_dashes_of_a_program_is_written_without(text, fix):
    with pytest.raises(InputError) as refused:
        training.resolve(["method=rotnet", "recipe=tiny", text], planning=True)
    assert str(refused.value) == f"{text}: not an override; {fix}"


@pytest.mark.parametrize(
    "text, said",
    {
        "cluster.srun='--mpi=none'": "cluster.srun: it is a mapping; write cluster.srun.NAME=VALUE for each, or "
        "cluster.srun={} for none",
        "cluster.srun=null": "cluster.srun: it is a mapping; ",
        "cluster.environment=[a]": "cluster.environment: it is a mapping; ",
        "cluster.environment.A=null": "cluster.environment.A: it cannot be null; leave it out",
        "cluster.environment.A=[1]": "cluster.environment.A: it is text; give one value",
        "cluster.setup=false": "cluster.setup: it is a list; give one like ['module load cuda']",
        "cluster.setup={a: b}": "cluster.setup: it is a list; ",
        "cluster.setup=null": "cluster.setup: it is a list; ",
        "cluster.setup=[null]": "cluster.setup[0]: it cannot be null; leave it out",
        "method.crop_scale=3": "method.crop_scale: it is a list; give one like [0.3,1]",
        "seed=null": "seed: it cannot be null; leave it out",
        "runs=[a]": "runs: it is text; give one value",
        "eval_after={a: b}": "eval_after={'a': 'b'}: there is no such name; known: ",
    }.items(),
)
def test_what_is_of_another_kind_is_said_with_what_is_right(text, said):
    with pytest.raises(InputError) as refused:
        training.resolve(["method=rotnet", "recipe=tiny", text], planning=True)
    assert str(refused.value).startswith(said)


def test_other_verbs_know_such_folders_too(sslrun, tmp_path):
    odd = tmp_path / "a, b=(ü)"
    odd.mkdir()
    for word in (f"runs={odd}", f"runs='{odd}'", "runs=~/a, b=(ü)"):
        assert sslrun.where(HOME=str(tmp_path))("status", word, "--json").json == []


@pytest.mark.parametrize(
    "value", ["{mpi:none,container-image:a#b/c:1}", "{container-mounts:[/a#1:/a,/b:/b]}", "[a&b,c]"]
)
def test_a_list_or_a_mapping_that_cannot_be_read_is_said_with_quotes(value):
    with pytest.raises(InputError, match="quote what it cannot read: type ") as refused:
        spelled(f"cluster.srun={value}")
    (word,) = typed_in_a_shell(str(refused.value).rpartition(": type ")[2])
    unquoted = word.partition("=")[2].replace("'", "")
    assert unquoted == value and parsed(word).value()


def test_several_values_of_an_option_of_srun_are_a_list():
    with pytest.raises(InputError, match="for a list type ") as refused:
        training.resolve(["method=rotnet", "recipe=tiny", "cluster.srun.container-mounts=/a:/a,/b:/b"], planning=True)
    (word,) = typed_in_a_shell(str(refused.value).rpartition(" type ")[2])
    assert parsed(word).value() == ["/a:/a", "/b:/b"]


@pytest.mark.parametrize("where", [["eval_data=made/objects"], ["data=made/objects"]])
def test_images_of_several_labels_are_refused_to_what_is_to_judge_them_later(where):
    words = ["method=rotnet", "recipe=tiny", *where]
    for asked in ("eval_after=knn", "eval_after=[svm,knn]"):
        with pytest.raises(InputError, match=r"^eval_after=knn: .* made/objects has several") as found:
            training.resolve([*words, asked])
        assert found.value.exit_code == 2
    assert training.resolve([*words, "eval_after=svm"])[0].eval_after == ("svm",)
    own = [*words[:2], "data=made/objects", "eval_data=cifar10", "eval_after=knn"]
    assert training.resolve(own, planning=True)[0].eval_after == ("knn",), "the images to judge by have one label each"
