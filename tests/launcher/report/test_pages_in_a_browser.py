"""The pages of a sweep and of a run in a real Chromium, at the width of a screen and of a telephone, light and dark."""

import importlib.util
from pathlib import Path

import pytest

from launcher.compose.training import resolve
from launcher.report import life, outlook, page, table
from launcher.run.files import write_json
from launcher.sweep import asked

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browsers = importlib.util.module_from_spec(_spec)  # tests are not a package
_spec.loader.exec_module(browsers)

WIDTHS = {"screen": 1280, "telephone": 390}
# The text that a reader sees: what is drawn, not what only exists.
TEXTS = """
(() => {
  const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number)
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b)
  }
  const ground = light(getComputedStyle(document.body).backgroundColor)
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = []
  for (let node; node = walker.nextNode();) {
    const element = node.parentElement, range = document.createRange()
    range.selectNodeContents(node)
    const box = range.getBoundingClientRect()
    if (!node.data.trim() || element.closest('title, style, script') || !box.width) continue
    const style = getComputedStyle(element), mine = light(element.closest('svg') ? style.fill : style.color)
    const contrast = (Math.max(ground, mine) + 0.05) / (Math.min(ground, mine) + 0.05)
    const straight = !!element.closest('svg') && !element.hasAttribute('transform')
    found.push({text: node.data.trim(), left: box.left, right: box.right, top: box.top, bottom: box.bottom, contrast,
                size: parseFloat(style.fontSize), straight})
  }
  return found
})()
"""


def pytest_generate_tests(metafunc):
    if "width" in metafunc.fixturenames:
        metafunc.parametrize("width", WIDTHS.values(), ids=WIDTHS.keys())


@pytest.fixture(scope="module")
def browser(no_browser):
    if browsers.missing():
        no_browser()
    with browsers.Browser() as found:
        yield found


@pytest.fixture
def sweep_page(tabled, tmp_path) -> Path:
    """A point done, one in part, one failed, one that cannot be."""
    runs = tabled.submit()
    for seed, score in enumerate((41.0, 43.5)):
        tabled.done(runs[0.01, seed], score)
    tabled.done(runs[0.02, 0], 44.0)
    tabled.ledgers.start(runs[0.04, 0])
    tabled.ledgers.end(runs[0.04, 0], "failed", "rank 0 on node17: the loss is not a number at step 1,204")
    page.sweep(tabled.table(), tmp_path / "sweep.html", "sslrun report sweep=nobody/rates recipe=demo")
    return tmp_path / "sweep.html"


@pytest.fixture
def run_page(tabled, tmp_path, torn) -> Path:
    """Preempted twice, with curves, a score and a picture."""
    from PIL import Image

    ledgers, run = tabled.ledgers, tabled.submit()[0.01, 0]
    for cause, state in (("submitted", "preempted"), ("preempted", "preempted"), ("preempted", "done")):
        ledgers.submit(run, "17")
        ledgers.start(run, cause, job="17", nodes="node[001-064]")
        ledgers.say(run, "restored", step=40 * (run.generation() - 1), lost_steps=3)
        ledgers.say(run, "checkpoint", step=40 * run.generation(), path="x")
        if state == "done":
            ledgers.say(run, "eval", protocol="knn", step=120, scores={"trained": 41.5, "untrained": 20.25})
        ledgers.end(run, state)
    write_json(run.path / "progress.json", {"step": 120, "steps": 120, "stage": "done"})
    values = {"lr": 0.01, "images_per_s": 120.0, "a_score_with_quite_a_long_name": 1e-6}
    torn(run.path / "metrics.jsonl", *({"step": n, "loss": 3 / n, **values} for n in range(1, 121)))
    Image.new("L", (1600, 200), 128).save(run.path / "clusters.png")
    page.run(life.of(run), tmp_path / "run.html", f"sslrun report {run.id}")
    return tmp_path / "run.html"


def check(shown, width: int) -> None:
    assert shown.complaints() == []
    assert shown.fetched() == []
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    wide = shown.evaluate("[...document.querySelectorAll('table')].map(t => t.scrollWidth - t.parentNode.clientWidth)")
    assert max(wide) <= 0
    texts = shown.evaluate(TEXTS)
    assert len(texts) > 20
    for text in texts:
        assert text["left"] >= 0 and text["right"] <= width + 0.5, text
        assert text["contrast"] >= 4.5, text
        assert text["size"] >= 10, text
    drawn = [text for text in texts if text["straight"]]
    assert not [(a["text"], b["text"]) for n, a in enumerate(drawn) for b in drawn[:n] if overlap(a, b)]


def overlap(a: dict, b: dict) -> bool:
    wide = min(a["right"], b["right"]) - max(a["left"], b["left"])
    return wide > 1 and min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 4


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_sweeps_page_fits_and_can_be_read(browser, sweep_page, width, dark):
    shown = browser.open(sweep_page, width=width, dark=dark)
    check(shown, width)
    rows = shown.evaluate("[...document.querySelectorAll('tbody tr')].map(row => row.innerText)")
    wanted = "42.2 ± 1.77", "1 pending, 1 done", "1 failed, 1 pending", "not here yet: needs nobodys"
    assert [said in row for said, row in zip(wanted, rows, strict=True)] == [True] * 4, rows
    assert ground(shown) == ("rgb(22, 23, 22)" if dark else "rgb(253, 253, 251)")


@pytest.mark.parametrize("name", ["dino/byol_and_moco", "dino/head_depth", "swav/multicrop", "swav/small_batch"])
def test_long_names_and_several_series_fit(browser, tmp_path, width, name):
    words = [f"sweep={name}", f"recipe={'demo' if name == 'swav/small_batch' else 'paper'}"]
    page.sweep(table.gather(asked.read(words), tmp_path), tmp_path / "page.html", f"sslrun report {' '.join(words)}")
    check(browser.open(tmp_path / "page.html", width=width), width)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_runs_page_fits_and_can_be_read(browser, run_page, width, dark):
    shown = browser.open(run_page, width=width, dark=dark)
    check(shown, width)
    assert shown.evaluate("document.images[0].naturalWidth") == 1600
    assert shown.evaluate("document.querySelectorAll('.starts tbody tr').length") == 3


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_of_a_simulated_run_fits_and_can_be_read(browser, tmp_path, width, dark):
    spec, recipe = resolve(["method=deepercluster", "nodes=64", "cluster=generic"], planning=True)
    found = outlook.of(spec, recipe, outlook.CONFIG)
    page.simulation(found, tmp_path / "ahead.html", "sslrun plan method=deepercluster nodes=64 --simulate")
    shown = browser.open(tmp_path / "ahead.html", width=width, dark=dark)
    check(shown, width)
    assert shown.evaluate("document.querySelectorAll('tbody tr').length") == len(found.forecasts)


def ground(shown) -> str:
    return shown.evaluate("getComputedStyle(document.body).backgroundColor")
