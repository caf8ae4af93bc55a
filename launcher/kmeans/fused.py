"""The E-step on a GPU in one kernel: products, biases and a running argmax; no score is ever written to memory.

Each program takes ROWS rows, walks over all centroids in tiles of COLUMNS, and for each tile over d in steps of DEPTH
(d = 4096 does not fit into shared memory at once), with a running (best score, its index) a row. Programs that run at
the same time share the tiles of centroids in the L2 cache, so that the features are read once from memory and the
centroids about once a wave of programs.

Checked with Triton's interpreter (tests/launcher/kmeans), which runs its arithmetic on a CPU, in float16 and in float32
with values of bfloat16 (the interpreter cannot multiply bfloat16). It has NOT been run on a GPU: neither that it
compiles there, nor its speed, nor the choice of the tiles has been checked.
"""

import torch

from launcher.kmeans.nearest import rounded

try:
    import triton
    import triton.language as tl
except ImportError:  # no GPU build of torch
    triton = None

# Products in these; float32 stays in plain torch, where its products are exact to float32 and not to TF32.
DTYPES = (torch.bfloat16, torch.float16)
ROWS, COLUMNS, DEPTH = 128, 256, 64
WARPS, STAGES = 8, 3


def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel runs there: its tiles need the shared memory of an A100 or H100."""
    if triton is None or device.type != "cuda" or dtype not in DTYPES or torch.version.hip is not None:
        return False
    found = torch.cuda.get_device_properties(device)
    needed = STAGES * DEPTH * (ROWS + COLUMNS) * dtype.itemsize
    return found.major >= 8 and getattr(found, "shared_memory_per_block_optin", 0) >= needed


class Kernel:
    """Centroids prepared for the kernel."""

    def __init__(self, centroids: torch.Tensor, spherical: bool, dtype: torch.dtype):
        """centroids: float32 [k, d], as the features are measured; dtype: bfloat16 or float16, of the products."""
        self.compared, self.bias = rounded(centroids, spherical, dtype)

    def nearest(self, x: torch.Tensor) -> torch.Tensor:
        """int64 [n] for x [n, d]; among equals, the first wins."""
        (n, d), k = x.shape, len(self.compared)
        x = x.to(self.compared.dtype).contiguous()
        nearest = torch.empty(n, dtype=torch.int64, device=x.device)
        if n:
            grid = (triton.cdiv(n, ROWS),)
            _nearest[grid](
                x, self.compared, self.bias, nearest, n, k, d, ROWS, COLUMNS, DEPTH, num_warps=WARPS, num_stages=STAGES
            )
        return nearest


if triton is not None:

    @triton.jit
    def _nearest(
        x, centroids, bias, nearest, n, k, d,
        ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    ):  # fmt: skip
        """nearest[i] = argmax_j x[i] . centroids[j] + bias[j]; x [n, d] and centroids [k, d] contiguous."""
        rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        depth = tl.arange(0, DEPTH)
        # 64 bits: 1.44M x 4096 features have more entries than 32 can count.
        row_start = x + rows.to(tl.int64)[:, None] * d
        best = tl.full((ROWS,), float("-inf"), tl.float32)
        index = tl.zeros((ROWS,), tl.int32)
        for first in range(0, k, COLUMNS):
            columns = first + tl.arange(0, COLUMNS)
            column_start = centroids + columns.to(tl.int64)[None, :] * d
            scores = tl.zeros((ROWS, COLUMNS), tl.float32)
            for begin in range(0, d, DEPTH):
                at = begin + depth
                a = tl.load(row_start + at[None, :], mask=(rows[:, None] < n) & (at[None, :] < d), other=0.0)
                b = tl.load(column_start + at[:, None], mask=(columns[None, :] < k) & (at[:, None] < d), other=0.0)
                scores = tl.dot(a, b, scores)
            scores += tl.load(bias + columns, mask=columns < k, other=float("-inf"))[None, :]
            top, where = tl.max(scores, axis=1, return_indices=True, return_indices_tie_break_left=True)
            better = top > best  # and not equal: the first of equals wins
            best = tl.where(better, top, best)
            index = tl.where(better, first + where, index)
        tl.store(nearest + rows, index.to(tl.int64), mask=rows < n)
