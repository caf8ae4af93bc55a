"""The points of a multirun are the runs that their overrides would make one by one, composed once."""

import json

import pytest

from launcher.compose import points, training
from launcher.errors import InputError

TINY = ("method=rotnet", "recipe=tiny")


@pytest.fixture
def composed(monkeypatch) -> list[list[str]]:
    """What was composed: the overrides of each time."""
    real, seen = points.composed, []

    def count(overrides, **options):
        seen.append(list(overrides))
        return real(overrides, **options)

    monkeypatch.setattr(points, "composed", count)
    return seen


def varied(found: list[points.Point]) -> list[str]:
    return [" ".join(point.varied) for point in found]


def alone(*overrides: str, config_dir=None) -> dict:
    """The spec of one run of these overrides."""
    return training.resolve(list(overrides), config_dir=config_dir)[0].to_json()


def refused(*overrides: str, **options) -> str:
    with pytest.raises(InputError) as error:
        points.expand([*TINY, *overrides], **options)
    return str(error.value)


def test_every_combination_the_last_key_varying_fastest(composed):
    found = points.expand([*TINY, "seed=1,2", "method.epochs=7", "method.lr=0.1,0.2,0.3"])
    assert varied(found) == [f"seed={seed} method.lr={lr}" for seed in (1, 2) for lr in (0.1, 0.2, 0.3)]
    assert [(p.spec.seed, p.spec.method.lr, p.spec.method.epochs) for p in found] == [
        (seed, lr, 7) for seed in (1, 2) for lr in (0.1, 0.2, 0.3)
    ]
    assert len({point.spec.run_id for point in found}) == 6
    assert {point.recipe.method.name for point in found} == {"rotnet"}
    assert len(composed) == 1


SWEPT = {
    "method.lr=0.1,1e-3,2": ["0.1", "0.001", "2"],
    "seed=range(3,9,3)": ["3", "6"],
    "method.schedule=choice(constant,cosine)": ["constant", "cosine"],
    "method.warmup_lr=null,0.5": ["null", "0.5"],
    "method.crop_scale=[0.1,1],[0.2,0.9]": ["[0.1,1]", "[0.2,0.9]"],
    "runs='a,b','c d'": ["'a,b'", "'c d'"],
    "group=null,staff": ["null", "staff"],
    "eval_after=knn,[knn,linear]": ["knn", "[knn,linear]"],
    "cluster.environment.NCCL_DEBUG=INFO,WARN": ["INFO", "WARN"],
    "+cluster.environment.OTHER=1,2": ["1", "2"],
}


@pytest.mark.parametrize("text", SWEPT)
def test_values_are_those_that_hydra_reads(text):
    assert points.values_of(text) == SWEPT[text]
    assert points.is_swept(text)


@pytest.mark.parametrize("which", [0, -1])
def test_each_is_what_it_would_be_alone(which, composed):
    wanted = [[f"{text.partition('=')[0]}={values[n]}" for text, values in SWEPT.items()] for n in (0, -1)]
    found = points.rows(TINY, wanted)
    assert len(composed) == 1
    assert found[which].spec.to_json() == alone(*TINY, *wanted[which])


def test_a_dictionary_adds_to_what_there_is_and_not_to_the_point_before():
    found = points.expand([*TINY, "cluster.environment={A:x},{B:y}"])
    assert varied(found) == ["cluster.environment={A:x}", "cluster.environment={B:y}"]
    assert [point.spec.cluster.environment for point in found] == [{"A": "x"}, {"B": "y"}]


def test_a_choice_of_method_or_recipe_is_composed_once(composed):
    """And what is varied besides is set in each of them."""
    found = points.expand(["seed=1,2", "method=rotnet,swav", "recipe=tiny"])
    wanted = [f"seed={seed} method={method}" for seed in (1, 2) for method in ("rotnet", "swav")]
    assert varied(found) == wanted
    assert [point.recipe.method.name for point in found] == ["rotnet", "swav"] * 2
    assert len(composed) == 2
    assert [point.spec.seed for point in found] == [1, 1, 2, 2]
    assert found[-1].spec.to_json() == alone(*wanted[-1].split(), "recipe=tiny")


def test_points_share_nothing_that_could_change():
    first, second = points.expand([*TINY, "seed=1,2", "cluster.environment.A=x,y"])[:2]
    assert (first.spec.cluster.environment, second.spec.cluster.environment) == ({"A": "x"}, {"A": "y"})
    assert first.spec.method is not second.spec.method


def test_one_value_is_no_sweep():
    (point,) = points.expand([*TINY, "seed=3", "method.lr=0.1,0.1"])
    assert point.varied == ()
    assert point.spec.to_json() == alone(*TINY, "seed=3", "method.lr=0.1")


def test_a_key_that_refers_to_another_follows_it(tmp_path):
    own = tmp_path / "method" / "mine.yaml"
    own.parent.mkdir()
    own.write_text("defaults: [rotnet, _self_]\nepochs: ${seed}\n")
    words = ("method=mine", "recipe=tiny", "method.lr=0.5")
    found = points.expand([*words, "seed=3,4"], tmp_path)
    assert [(point.spec.seed, point.spec.method.epochs) for point in found] == [(3, 3), (4, 4)]
    assert [point.spec.method.lr for point in found] == [0.5, 0.5]
    assert found[1].spec.to_json() == alone(*words, "seed=4", config_dir=tmp_path)


def test_a_glob_chooses_among_the_members_of_a_group(tmp_path):
    own = tmp_path / "method" / "rotmine.yaml"
    own.parent.mkdir()
    own.write_text("defaults: [rotnet, _self_]\n")
    words = ["recipe=tiny", "method=glob(rot*)"]
    assert varied(points.expand(words, tmp_path)) == ["method=rotmine", "method=rotnet"]
    assert varied(points.expand(words)) == [""]  # one alone varies nothing
    with pytest.raises(InputError, match=r"method=glob\(z\*\): nothing matches; there are .*, rotnet, "):
        points.expand(["recipe=tiny", "method=glob(z*)"], tmp_path)


def test_planning_needs_no_data():
    words = ["method=rotnet", "recipe=tiny", "data=cifar10", "data.path=/nowhere", "seed=1,2"]
    with pytest.raises(InputError, match="/nowhere"):
        points.expand(words)
    assert [point.spec.seed for point in points.expand(words, planning=True)] == [1, 2]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=2,-1"], "seed=-1: it is negative; give 0 or more (at seed=-1)"),
        (["seed=1,2", "method.lr=0.1,null"], "(at seed=1 method.lr=null)"),
        (["method.lr=0.1,many"], "method.lr: Value 'many' of type 'str' could not be converted to Float; give one"),
        (["method.rate=1,2"], "method.rate=1: there is no such key"),
        (["seed=glob(*)"], "seed=glob(*): glob chooses among the members of a group: method, data, eval_data, cluster"),
        (["seed=range(0,0)"], "seed=range(0,0): it holds no value; give some"),
        (["seed=interval(0,1)"], "seed=interval(0,1): nobody can enumerate it; give values, or a range"),
        (["seed=,"], "seed=,: not an override; write key=value"),
        (["seed"], "seed: not an override; write key=value"),
    ],
)
def test_what_is_no_run_is_said_with_the_point(overrides, said):
    assert said in refused(*overrides)


def test_too_many_are_a_slip(monkeypatch, composed):
    assert points.MOST == 10_000
    assert "this is 10,001 runs, more than 10,000; vary fewer" in refused("seed=range(0,10001)")
    assert "this is 20,000 runs" in refused("seed=range(0,10000)", "method.lr=1,2")
    assert composed == []
    monkeypatch.setattr(points, "MOST", 4)
    assert len(points.expand([*TINY, "seed=1,2", "method.lr=1,2"])) == 4


# -- rows of a table -------------------------------------------------------------------------------------------------


def test_each_row_has_overrides_of_its_own(composed):
    table = [["method.lr=0.5"], ["seed=3", "method.lr=0.25"], [], ["method=swav"], ["method.epochs=4", "method=swav"]]
    common = ["recipe=tiny", "tasks_per_node=2"]
    rotnet = [words if "method=swav" in words else [*words, "method=rotnet"] for words in table]
    found = points.rows(common, rotnet)
    assert [list(point.varied) for point in found] == rotnet
    assert [point.recipe.method.name for point in found] == ["rotnet"] * 3 + ["swav"] * 2
    assert len(composed) == 2
    values = [(point.spec.method.lr, point.spec.seed, point.spec.method.epochs) for point in found]
    _, seed, epochs = values[2]
    assert values[:2] == [(0.5, seed, epochs), (0.25, 3, epochs)]
    assert found[-1].spec.to_json() == alone(*common, *rotnet[-1])


def test_a_row_takes_nothing_from_the_one_before():
    table = [["cluster.environment={A:x}"], ["cluster.environment={B:y}"], ["cluster.environment.C=z"], []]
    environments = [point.spec.cluster.environment for point in points.rows(TINY, table)]
    assert json.loads(json.dumps(environments)) == [{"A": "x"}, {"B": "y"}, {"C": "z"}, {}]


def test_rows_plan_with_ones_own_configs_and_without_data(tmp_path):
    own = tmp_path / "method" / "mine.yaml"
    own.parent.mkdir()
    own.write_text("defaults: [rotnet, _self_]\nlr: 0.125\nepochs: ${seed}\n")
    common = ["method=mine", "recipe=tiny", "data=cifar10", "data.path=/nowhere"]
    found = points.rows(common, [["seed=3"]], tmp_path, planning=True)
    assert [(point.spec.method.lr, point.spec.method.epochs) for point in found] == [(0.125, 3)]
    with pytest.raises(InputError, match=r"/nowhere.* \(at seed=3\)"):
        points.rows(common, [["seed=3"]], tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (["seed=3", "method.rate=1"], "method.rate=1: there is no such key; did you mean"),
        (["seed=3", "method.lr=many"], "could not be converted to Float; give one float (at seed=3 method.lr=many)"),
        (["method=none"], "method=none: there is no such name"),
    ],
)
def test_a_row_that_is_no_run_is_named(row, said):
    with pytest.raises(InputError) as error:
        points.rows(TINY[1:] if row == ["method=none"] else TINY, [row])
    assert said in str(error.value) and str(error.value).endswith(f"(at {' '.join(row)})")


# -- one override ----------------------------------------------------------------------------------------------------


def test_an_override_gives_these_values():
    assert points.values_of("seed=3") == ["3"]
    assert points.values_of("seed=3,1,3") == ["3", "1"]
    assert points.values_of("data.path='a=b'") == ["'a=b'"]
    assert [points.is_swept(text) for text in ("seed=3", "seed=3,1", "seed=[3,1]", "seed='3,1'")] == [
        False, True, False, False,
    ]  # fmt: skip
    with pytest.raises(InputError, match="not an override"):
        points.is_swept("seed")
