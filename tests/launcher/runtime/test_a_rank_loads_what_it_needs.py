"""A rank does not wait for networks of others that it does not train, nor for what evaluates."""

import subprocess
import sys

from launcher.spec.registry import names


def test_no_training_loads_what_it_may_not_need():
    """Up to its first step, and with a small backbone: torchvision and timm take two seconds of each rank; what
    evaluates comes with the first evaluation. That step brings torch's compiler, of which torch asks whether there is
    something to compile."""
    program = """if True:
        import sys
        from importlib import import_module
        from launcher.spec.registry import load_trainer, method, names
        from launcher.start.worker import AHEAD
        from methods import backbones
        for name in AHEAD[:-1]:
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
