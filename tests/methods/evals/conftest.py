"""A run with one checkpoint of weights that were drawn, and its evaluations in this process."""

from pathlib import Path

import pytest
import torch
from torch import nn

from launcher.compose import evaluation
from launcher.compose.training import resolve
from launcher.plan.plan import make
from launcher.run.folder import RunDir
from launcher.run.ledger import Ledger
from launcher.run.snapshot import Snapshot
from launcher.runtime.checkpoint import Checkpointer, Owners
from launcher.runtime.dist import World
from launcher.runtime.health import Heart
from launcher.runtime.preempt import StopFlag, Stopped
from launcher.runtime.stateful import ModuleState
from methods import backbones
from methods.evals.alone import evaluate

ALONE = World(0, 1, torch.device("cpu"))


class Network(nn.Module):
    def __init__(self, backbone: str):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = backbones.build(backbone)


class StopAt:
    """Told to stop at the n-th question."""

    signal, seconds = None, None

    def __init__(self, count: int):
        self.left = count

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0


class Evaluated:
    """One run, and what its evaluations find."""

    def __init__(self, folder: Path, backbone: str = "small_resnet", *overrides: str):
        where = ["method=swav", "recipe=tiny", f"method.backbone={backbone}", f"runs={folder / 'runs'}", *overrides]
        spec, recipe = resolve(where)
        self.run = RunDir(folder / "runs" / spec.run_id)
        code = Snapshot(folder / ".code", "digest", "")
        self.run.create(spec, make(spec, recipe), lambda: code)
        owners = Owners(ALONE)
        network = Network(backbone)
        self.backbone = network.backbone.eval()
        owners.add("network", ModuleState(network))
        Checkpointer(self.run, ALONE, owners, keep=1, generation=1).save(12, 12)

    def asked(self, *overrides: str) -> RunDir:
        """The folder of an evaluation: of the checkpoint that there is, since nobody says that the run is done."""
        found, _ = evaluation.prepare(self.run, evaluation.want(self.run, [*overrides, "step=newest"]))
        return found

    def serve(self, asked: RunDir) -> dict[str, dict]:
        return serve(asked)

    def scores(self, *overrides: str, world: World = ALONE) -> dict[str, dict]:
        return serve(self.asked(*overrides), world)

    def stopped(self, asked: RunDir, questions: int) -> bool:
        """Whether it was stopped at the n-th question, and not done before."""
        try:
            evaluate(asked, ALONE, Ledger(asked.path, 1, "rank0"), StopAt(questions), Heart(asked))
        except Stopped:
            return True
        return False


def serve(asked: RunDir, world: World = ALONE) -> dict[str, dict]:
    """Evaluate in this process; {protocol: scores} on rank 0, whatever the settings."""
    evaluate(asked, world, Ledger(asked.path, 2, f"rank{world.rank}"), StopFlag(), Heart(asked))
    return {e["protocol"].partition("(")[0]: e["scores"] for e in asked.history().all("eval")}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory) -> Evaluated:
    return Evaluated(tmp_path_factory.mktemp("evaluated"))


@pytest.fixture(scope="session")
def evaluated_in() -> type[Evaluated]:
    """`evaluated_in(folder, backbone, ...)`."""
    return Evaluated


@pytest.fixture
def evaluated_vit(tmp_path) -> Evaluated:
    return Evaluated(tmp_path, "small_vit")
