"""A rank that compiles nothing does not wait for torch's compiler, and steps as it would with it; nor does it wait for
networks of others that it does not train."""

import json
import subprocess
import sys

import pytest

from launcher.spec.registry import names

STEPS = """
import json
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

from launcher.runtime import uncompiled
from methods.parts.optim import LARS

if "told" in sys.argv:
    uncompiled.leave_alone()
torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
torch.manual_seed(0)
batch, found = torch.randn(4, 3), {}
for make in (torch.optim.SGD, torch.optim.AdamW, LARS):
    layer = torch.nn.Linear(3, 2)
    with uncompiled.unasked():
        network = DistributedDataParallel(layer, find_unused_parameters=True)
    optimizer = make([{"params": layer.parameters()}], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad(set_to_none=True)
        network(batch).square().sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    found[make.__name__] = [p.tolist() for p in layer.parameters()]
    assert all(p.grad is not None and p.requires_grad for p in layer.parameters())
loaded = "torch._dynamo" in sys.modules
double = torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(1)).item()  # whoever wants it has all of it
torch.distributed.destroy_process_group()
print(json.dumps({"loaded": loaded, "weights": found, "double": double}))
"""


@pytest.mark.slow  # one of two loads the compiler
def test_its_steps_are_the_same_and_who_compiles_still_can():
    told, plain = (
        json.loads(
            subprocess.run(
                [sys.executable, "-P", "-c", STEPS, *words], capture_output=True, text=True, check=True
            ).stdout.splitlines()[-1]
        )
        for words in (["told"], [])
    )
    assert (told["loaded"], plain["loaded"]) == (False, True)
    assert told["weights"] == plain["weights"]
    assert told["double"] == plain["double"] == 2


def test_no_rank_of_a_run_loads_it(sslrun, watched):
    noted = sslrun.where(PYTHONPROFILEIMPORTTIME="1")  # Python then says in a rank's log what it imports
    launch = ("method=rotnet", "recipe=tiny", "method.epochs=1", "tasks_per_node=2")
    noted(*launch, f"runs={watched.runs}", cold=True)
    for rank in range(2):
        log = (watched.path / "logs" / f"rank{rank}.log").read_text()
        assert "| torch.nn" in log.replace("  ", "")
        assert "torch._dynamo" not in log


def test_no_training_loads_what_it_may_not_need():
    """Up to its first step, and with a small backbone: torchvision and timm take two seconds of each rank, and bring
    the compiler along; what evaluates comes with the first evaluation."""
    program = """if True:
        import sys
        from importlib import import_module
        from launcher.spec.registry import load_trainer, method, names
        from launcher.start.worker import AHEAD
        from methods import backbones
        for name in AHEAD:
            import_module(name)
        for name in names():
            load_trainer(name)
            backbones.network(method(name).recipes["tiny"]().method.backbone)
        unneeded = {"torchvision", "timm", "faiss", "scipy", "sklearn", "skimage", "matplotlib", "sympy", "pandas"}
        unneeded |= {"torch._dynamo", "torch._inductor", "submitit", "hydra", "rich"}
        print(*unneeded.intersection(sys.modules), len(names()))
    """
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert done.stdout == f"{len(names())}\n", done.stdout + done.stderr
