"""What is wrong with the YAML of a sweep is said in one line: the file, the field, the reason and the fix."""

import pytest

from launcher.errors import InputError
from launcher.sweep import ablation

GOOD = """
paper: Nobody (1999)
table: Table 1
claim: Nothing.
numbers: top-1 (%)
method: rotnet
axis: rate
sets: method.lr={value}
scales:
  paper: {metric: knn.trained, gpu_hours: 8}
  demo: {metric: linear.trained, minutes: 2, fixed: [method.epochs=3]}
points:
  - {value: 1, paper: 50.0}
  - {value: 2, paper: 52.5, at: {demo: {value: 3, sets: [method.momentum=0.8, method.epochs=4]}}}
  - {value: yes, sets: [method.lr=7, 'method.dropout={value}'], needs: nobodys}
"""


@pytest.fixture
def read(tmp_path):
    def run(old: str = "", new: str = "") -> ablation.Ablation:
        assert old in GOOD
        (tmp_path / "table.yaml").write_text(GOOD.replace(old, new, 1))
        return ablation.read("nobody/table", tmp_path / "table.yaml")

    return run


def test_the_last_word_on_a_key_counts(read, monkeypatch):
    monkeypatch.setattr("methods.evals.spec.PROTOCOLS", ("knn", "linear"))
    table = read()
    start = ["method=rotnet", "recipe=demo", "method.epochs=3", "eval_after=linear"]
    assert table.overrides(table.points[0], "demo") == [*start, "method.lr=1"]
    start[2] = "method.epochs=4"
    assert table.overrides(table.points[1], "demo") == [*start, "method.lr=3", "method.momentum=0.8"]
    assert table.overrides(table.points[1], "paper") == ["method=rotnet", "recipe=paper", "method.lr=2"]
    assert table.overrides(table.points[2], "paper")[2:] == ["method.lr=7", "method.dropout=true"]
    assert table.varied("demo") == {"method.lr", "method.momentum", "method.epochs", "method.dropout"}
    assert table.varied("paper") == {"method.lr", "method.dropout"}


def test_what_a_point_lacks(read, monkeypatch):
    table = read()
    monkeypatch.setattr("methods.evals.spec.PROTOCOLS", ("knn",))
    assert [table.lacks(point, "paper") for point in table.points] == [[], [], ["nobodys"]]
    assert [table.lacks(point, "demo") for point in table.points] == [["linear"], ["linear"], ["linear", "nobodys"]]
    assert table.lacks(table.points[2], "demo", own=["nobodys", "linear"]) == []
    assert table.lacks(read("needs: nobodys", "needs: [resnet50, resnet5]").points[2], "paper") == ["resnet5"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("axis: rate", "axes: rate", "Key 'axes' not in 'Ablation'"),
        ("paper: 50.0", "paper: many", "points[0].paper=many: it is no number; give the paper's"),
        ("{value: 1, paper: 50.0}", "{paper: 50.0}", "points[0]={'paper': 50.0}: it has no value"),
        ("claim: Nothing.", "", "claim"),
        ("sets: method.lr={value}", "sets: method.lr=1", "sets=method.lr=1: it holds no {value}, so it varies nothing"),
        ("[method.epochs=3]", "[epochs]", "scales.demo.fixed=epochs: it is no override; write key=value"),
        ("demo: {metric", "tiny: {metric", "scales=paper, tiny: it needs paper and demo"),
        ("knn.trained", "knn", "scales.paper.metric=knn: it is protocol.score; write it like knn.trained"),
        (", gpu_hours: 8", "", "scales.paper.gpu_hours=None: it does not say what it costs; give gpu_hours or minutes"),
        ("minutes: 2", "minutes: 2, seeds: [0, 0]", "scales.demo.seeds=[0, 0]: they are different numbers"),
        ("at: {demo:", "at: {dmo:", "points[1].at=dmo: there is no such scale; use paper, demo"),
        ("{value: 3,", "{vlue: 3,", "points[1].at.demo="),
        ("at: {demo:", "at: {paper: 1, demo:", "points=2: at scale paper it is the same run as 1; give `at`"),
        ("{value: 2, paper", "{value: '1', paper", "points[1].value=1: a point before it is called so, too; give it"),
        ("sets: method.lr={value}", "sets: 3", "sets=3: it is no text and no list of texts; write it like"),
        ("needs: nobodys", "needs: 3", "points[2].needs=3: it is no text and no list of texts"),
        ("needs: nobodys", "needs: [3]", "points[2].needs=[3]: it is no text and no list of texts"),
        ("[method.lr=7, 'method.dropout={value}']", "3", "points[2].sets=3: it is no text and no list of texts"),
        ("sets: [method.momentum=0.8, method.epochs=4]", "sets: 3", "points[1].at.demo.sets=3: it is no text"),
        ("{demo: {value: 3, sets", "{paper: [1, 2], demo: {value: 3, sets", "points[1].at.paper=[1, 2]: it is no num"),
        ("{demo: {value: 3, sets", "{paper: null, demo: {value: 3, sets", "points[1].at.paper=None: it is no number"),
        ("{demo: {value: 3,", "{demo: {value: [3],", "points[1].at.demo=[3]: it is no number and no name"),
        ("paper: 50.0", "paper: .nan", "points[0].paper=nan: it is no number"),
        ("axis: rate", "axis: rate\naxis: rates", "found duplicate key axis"),
        ("{value: 1, paper", "{value: [1, 2], paper", "points[0].value=[1, 2]: it is no number and no name"),
        (
            "value: 1, paper",
            "value: 1, papr",
            "points[0].papr=50.0: there is no such key; use at, needs, paper, series",
        ),
        (
            "at: {demo: {value: 3, sets: [method.momentum=0.8, method.epochs=4]}}",
            "at: 3",
            "points[1].at=3: it names no",
        ),
        ("method: rotnet", "method: [rotnet", "expected ',' or ']'"),
    ],
)
def test_a_mistake_is_named(read, tmp_path, old, new, said):
    with pytest.raises(InputError) as raised:
        read(old, new)
    assert str(raised.value).startswith(f"{tmp_path / 'table.yaml'}: ")
    assert said in str(raised.value)


COLUMN = """
table: Table 1 (linear)
rows_of: nobody/table
papers: {"": [40.0, null, 41.0]}
scales: {paper: {metric: linear.top1}}
"""


@pytest.fixture
def column(tmp_path):
    def run(old: str = "", new: str = "") -> ablation.Ablation:
        assert old in COLUMN
        folder = tmp_path / "nobody"
        folder.mkdir(exist_ok=True)
        (folder / "table.yaml").write_text(GOOD)
        (folder / "linear.yaml").write_text(COLUMN.replace(old, new, 1))
        return ablation.read("nobody/linear", folder / "linear.yaml")

    return run


def test_another_column_has_the_rows_of_the_first_and_its_own_numbers(column, tmp_path):
    table = column()
    first = ablation.read("nobody/table", tmp_path / "nobody" / "table.yaml")
    assert (table.name, table.table, table.claim) == ("nobody/linear", "Table 1 (linear)", "Nothing.")
    assert [row.paper for row in table.points] == [40.0, None, 41.0]
    assert [(row.value, row.sets, row.at) for row in table.points] == [(r.value, r.sets, r.at) for r in first.points]
    assert (table.scales["paper"].metric, table.scales["paper"].gpu_hours) == ("linear.top1", 8)
    assert table.scales["demo"] == first.scales["demo"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("nobody/table", "nobody/tabel", "it takes the points of "),
        ("nobody/table", "nobody/linear", "it takes the points of "),
        ("rows_of", "points: []\nrows_of", "and has none of its own"),
        (", 41.0", "", "so many of nobody/table: {'': 3}"),
        ('{"": [40.0, null, 41.0]}', "[40.0, null, 41.0]", "of each series a list of numbers or null"),
        ('{"": [40.0, null, 41.0]}', '{"": 3}', "of each series a list of numbers or null"),
        ('{"": [', "{x: [", "so many of nobody/table: {'': 3}"),
        ("40.0", "many", "points[0].paper=many: it is no number"),
    ],
)
def test_a_column_that_does_not_fit_its_table_is_named(column, old, new, said):
    with pytest.raises(InputError) as raised:
        column(old, new)
    assert said in str(raised.value)


def test_ones_own_go_before_those_that_ship(tmp_path):
    own = tmp_path / "sweeps" / "swav" / "prototypes.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(GOOD)
    assert ablation.load("swav/prototypes", tmp_path).paper == "Nobody (1999)"
    assert ablation.load("swav/prototypes").paper.startswith("Caron")
    with pytest.raises(InputError, match="did you mean swav/prototypes"):
        ablation.load("swav/prototype")
