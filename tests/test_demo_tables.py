"""What the tables of demos are made of: which settings may be tried, which one is chosen, which rows stay."""

import re

from benchmarks import choose_demo, demo

KNN = {"trained": 64.4, "untrained": 32.8, "untrained_adapted": 46.8}


def page(*rows):
    """rows: (method, setting, seed, trained)."""
    made = (
        choose_demo.row(method, setting, seed, {"evals": {"knn": KNN | {"trained": trained}}})
        for method, setting, seed, trained in rows
    )
    return "# A page\n\nWith words.\n\n" + "".join(made)


def marked(tried):
    return [line for line in choose_demo.chosen(tried).splitlines() if line.endswith("| chosen |")]


def test_a_ninth_setting_is_refused_and_none_is_tried_twice_on_a_seed():
    tried = page(*(("swav", f"`method.lr={n}`", seed, 50.0) for n in range(8) for seed in (0, 1)))
    assert choose_demo.refusal(tried, "swav", "`method.lr=8`", 0).startswith("swav: 8 settings have been tried")
    assert "already" in choose_demo.refusal(tried, "swav", "`method.lr=7`", 1)
    assert choose_demo.refusal(tried, "smog", "`method.lr=8`", 0) is None
    fewer = page(*(("swav", f"`method.lr={n}`", 0, 50.0) for n in range(8)))
    assert choose_demo.refusal(fewer, "swav", "`method.lr=7`", 1) is None


def test_chosen_is_the_best_of_those_that_most_seeds_have_tried():
    tried = page(
        ("swav", "the recipe", 0, 50.0),
        ("swav", "`method.lr=1`", 0, 90.0),  # on one seed alone
        ("swav", "`method.lr=2`", 0, 70.0),
        ("swav", "the recipe", 1, 60.0),
        ("swav", "`method.lr=2`", 1, 41.0),
        ("smog", "the recipe", 0, 30.0),
        ("smog", "the recipe", 1, 30.0),
    )
    best = marked(tried)
    assert [line.split(" | ")[:3] for line in best] == [
        ["| `swav`", "`method.lr=2`", "0"],
        ["| `swav`", "`method.lr=2`", "1"],
        ["| `smog`", "the recipe", "0"],
        ["| `smog`", "the recipe", "1"],
    ]
    first = page(("byol", "the recipe", 0, 50.0), ("byol", "`method.lr=1`", 0, 51.0))
    assert [line.split(" | ")[1] for line in marked(first)] == ["`method.lr=1`"]
    better = choose_demo.chosen(tried) + page(("swav", "`method.lr=1`", 1, 40.0))
    assert {line.split(" | ")[1] for line in marked(better) if "swav" in line} == {"`method.lr=1`"}
    assert choose_demo.chosen(choose_demo.chosen(better)) == choose_demo.chosen(better)
    assert re.sub(r" (chosen )?\|$", "", choose_demo.chosen(better), flags=re.M) == re.sub(
        r" (chosen )?\|$", "", better, flags=re.M
    )


def test_rows_of_methods_that_were_not_run_stay_as_they_stand():
    readme = demo.README.read_text()
    before = demo.table(readme, {})
    assert "\n".join(before[2:]) in readme
    seeds = [demo.Measured(60.0 + n, 30.0, 50.0, 2.0 + n) for n in range(3)]
    after = demo.table(readme, {"swav": demo.row("swav", seeds), "new": demo.row("new", seeds)})
    gains = "| 61.0 ± 1.0 | 30.0 ± 0.0 | 31.0 ± 1.0 | 50.0 ± 0.0 | 11.0 ± 1.0 | 2.0 to 4.0 |"
    assert after[-1] == f"| `new` | 60.0, 61.0, 62.0 {gains}" and f"| `swav` | 60.0, 61.0, 62.0 {gains}" in after
    assert [b for b in before if "`swav`" not in b] == [a for a in after if "`swav`" not in a and "`new`" not in a]
    assert all(line.count("|") == before[0].count("|") for line in after)
    written = demo.written(readme, after)
    assert demo.table(written, {}) == after and demo.written(written, before) == demo.written(readme, before)


def test_five_points_within_the_spread_convince_nobody():
    def found(*gains):
        return demo.verdict("swav", [demo.Measured(50.0 + gain, 30.0, 50.0, 2.0) for gain in gains])

    assert found(5.0, 5.1, 5.2).endswith("convincing")
    assert "short of 5.0" in found(4.0, 4.1, 4.2) and "short of 8.0" in found(3.0, 7.0, 11.0)
