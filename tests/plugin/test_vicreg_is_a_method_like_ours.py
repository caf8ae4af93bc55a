"""A method of another package, written with docs/structure.md at hand, is found through its entry point, and keeps what
`tests/methods/test_contract.py` asks of ours. How few lines that takes is held, too."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.lines import ROOT, count

PLUGIN = Path(__file__).parent
BEFORE = 1656  # lines of specs and trainers of the five methods when each wrote its layout, sizes and set-up itself
FIVE = ("deepercluster", "dino", "rotnet", "smog", "swav")


@pytest.fixture
def contract(tmp_path, forge) -> Callable[..., None]:
    """`contract("not slow", "vicreg and odd")`: those tests of it pass where the package is installed, with the
    metadata that setuptools makes of its pyproject.toml."""
    making = [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "egg_info", "--egg-base", tmp_path]
    subprocess.run(making, cwd=PLUGIN, check=True, capture_output=True, timeout=120)
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(PLUGIN), str(tmp_path), *([before] if before else [])])
    environment = {**os.environ, "PYTHONPATH": path}

    def kept(marked: str, which: str = "vicreg") -> None:
        words = "-q", "-p", "no:cacheprovider", "tests/methods/test_contract.py", "-k", which, "-m", marked
        asked = [sys.executable, "-P", Path(pytest.__file__).with_name("__main__.py"), *words]
        log = tmp_path / "said.txt"
        with log.open("w") as said:
            code = forge.start(asked, cwd=ROOT, env=environment, stdout=said, stderr=said).wait(900)
        said = log.read_text()
        assert code == 0 and "passed" in said and "failed" not in said, said[-4000:]

    return kept


def test_it_is_planned_and_refuses_as_ours_are(contract):
    contract("not slow and not fault", "vicreg and (sized or memory or parameters or odd)")


@pytest.mark.slow
def test_it_keeps_the_contract(contract):
    contract("not slow and not fault")


@pytest.mark.fault
@pytest.mark.slow
def test_killed_and_resumed_it_keeps_the_contract(contract):
    contract("fault")


def test_a_method_is_few_lines():
    assert count(PLUGIN / "vicreg")[1] <= 130
    assert sum(count(ROOT / "methods" / name)[0] for name in FIVE) <= 0.7 * BEFORE


def test_the_method_that_the_document_shows_trains(with_method, tmp_path):
    shown = re.findall(r"```python\n# (\w+)\.py\n(.*?)```", (ROOT / "docs/structure.md").read_text(), flags=re.DOTALL)
    sslrun = with_method("toy", **dict(shown))
    made = sslrun("method=toy", "recipe=tiny", "method.epochs=1", f"runs={tmp_path / 'runs'}", "--json").json
    assert made["state"] == "done"
    assert "method.scale=0" in sslrun("plan", "method=toy", "recipe=demo", "method.scale=0", code=2).err
