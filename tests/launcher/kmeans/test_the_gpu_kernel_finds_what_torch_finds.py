"""Under Triton's interpreter, which needs no GPU; on one, the kernel itself is compared as well.

The interpreter cannot multiply bfloat16: there, its values go in as float32. Run as a script, this file is what the
interpreter runs: Triton looks for it when it is imported, and a fork of a process with torch has imported it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from launcher.kmeans import fused
from launcher.kmeans.nearest import Blocks, Tiles

# More rows, centroids and dimensions than one tile holds, none a multiple of it; and fewer.
SIZES = [(200, 300, 150), (130, 40, 64), (1, 3, 5)]

needs_triton = pytest.mark.skipif(fused.triton is None, reason="torch came without Triton")


def wrong(n, k, d, products, values, device="cpu"):
    """How many labels differ from those of plain torch; two centroids are the same, and the first has to win."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator).to(values).to(products).to(device)
    c = torch.randn(k, d, generator=generator).to(values).float().to(device)
    c[1] = c[0]
    count = 0
    for spherical in (False, True):
        ours = fused.Kernel(c, spherical, products).nearest(x)
        count += int((ours != Blocks(c, spherical, products, False).nearest(x)).sum()) + int((ours == 1).sum())
    return count


def wrong_among(n, k, d, products, device="cpu"):
    """How many of three answers differ from Tiles' where every block is compared with centroids of its own choice."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, generator=generator).to(products).float()
    c = torch.randn(k, d, generator=generator).to(products).float()
    c[1] = c[0]
    block = 2 * fused.ROWS
    wanted = torch.rand(-(-n // block), k, generator=generator) < 0.5
    wanted[:, :2] = True
    wanted[-1, 2:] = False
    own, scale = torch.randn(n, generator=generator) - 5, torch.rand(n, generator=generator)
    count = 0
    for spherical in (False, True):
        expected = Tiles(c, spherical, False, False).among(x, wanted, block, own, scale if spherical else None, None)
        kernel = fused.Kernel(c.to(device), spherical, products)
        given = (each.to(device) for each in (x.to(products), wanted))
        rest = own.to(device), scale.to(device) if spherical else None
        found = [each.cpu() for each in kernel.among(*given, block, *rest, None)]
        count += int((found[0] != expected[0]).sum()) + int((found[0] == 1).sum())
        count += int(((found[1] - expected[1]).abs() > 1e-2).sum())
        # The kernel counts from the best that a row has so far: never less than Tiles, which knows the best of all.
        far = found[2] - expected[2]
        count += int((far[wanted] < -1e-2).sum()) + int(found[2][~wanted].max() > -torch.inf)
    return count


@needs_triton
def test_in_the_interpreter():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, __file__], env=environment, check=True)


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", fused.DTYPES)
def test_on_a_gpu(dtype):
    assert wrong(20_000, 3000, 4096, dtype, dtype, "cuda") <= 20  # near ties, added up in another order
    assert wrong_among(20_000, 3000, 512, dtype, "cuda") <= 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float32_and_cpus_are_left_to_torch(dtype):
    assert not fused.usable(torch.device("cpu"), dtype)
    assert not fused.usable(torch.device("cuda"), torch.float32)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for size in SIZES:
        assert wrong(*size, torch.float16, torch.float16) == 0, size
        assert wrong(*size, torch.float32, torch.bfloat16) == 0, size
        assert wrong_among(*size, torch.float16) == 0, size
