"""The E-step on a GPU in one kernel: products, biases and a running argmax; no score is ever written to memory.

Each program takes ROWS rows, walks over all centroids in tiles of COLUMNS, and for each tile over d in steps of DEPTH
(d = 4096 does not fit into shared memory at once), with a running (best score, its index) a row. Programs that run at
the same time share the tiles of centroids in the L2 cache, so that the features are read once from memory and the
centroids about once a wave of programs.

Where bounds tell what each block of rows needs (bounds.py), a program walks over a list of these centroids instead, and
tells how far behind the others are; `_nearest_among`.

Checked with Triton's interpreter (tests/launcher/kmeans), which runs its arithmetic on a CPU, in float16 and in float32
with values of bfloat16 (the interpreter cannot multiply bfloat16). It has NOT been run on a GPU: neither that it
compiles there, nor its speed, nor the choice of the tiles has been checked.
"""

import torch

from launcher.kmeans.nearest import rounded, scores_of

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

    def scores_of(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """float32 [n], of each row of x with the centroid of its label, int64 [n]."""
        return scores_of(x, labels, self.compared, self.bias)

    def among(
        self,
        x: torch.Tensor,
        wanted: torch.Tensor,
        block: int,
        own: torch.Tensor,
        scale: torch.Tensor | None,
        scratch: None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `Tiles.among`; a program walks over a list of its block's centroids. block: a multiple of ROWS, or the
        only one."""
        (n, d), (count, k) = x.shape, wanted.shape
        x = x.to(self.compared.dtype).contiguous()
        lengths = wanted.sum(dim=1, dtype=torch.int32)
        width = int(lengths.max())
        number, column = wanted.nonzero(as_tuple=True)
        position = (wanted.cumsum(dim=1, dtype=torch.int32) - 1)[number, column]
        lists = torch.full((count, width), k, dtype=torch.int32, device=x.device)
        lists[number, position] = column.int()
        programs, of_block = triton.cdiv(n, ROWS), triton.cdiv(block, ROWS)
        nearest, top = torch.empty(n, dtype=torch.int64, device=x.device), torch.empty_like(own)
        excess = torch.full((count * of_block, width), -torch.inf, device=x.device)
        _nearest_among[(programs,)](
            x, self.compared, self.bias, lists, lengths, own, own if scale is None else scale, nearest, top, excess,
            n, d, width, of_block, scale is not None, ROWS, COLUMNS, DEPTH, num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip
        found = torch.full((count, k + 1), -torch.inf, device=x.device)  # the last one is nobody's
        found.scatter_(1, lists.long(), excess.view(count, of_block, width).amax(dim=1))
        return nearest, top, found[:, :k]


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

    @triton.jit
    def _nearest_among(
        x, centroids, bias, lists, lengths, own, scale, nearest, top, excess, n, d, width, of_block,
        SCALED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    ):  # fmt: skip
        """The same among the centroids that are listed for the program's block, int32 [blocks, width], of which the
        first `lengths` count. Beside the nearest: its score top, and excess[program, place in the list], the most by
        which a row's score with that centroid is above the best that the row has so far, or `own`."""
        program = tl.program_id(0)
        block = program // of_block
        rows = program * ROWS + tl.arange(0, ROWS)
        depth = tl.arange(0, DEPTH)
        length = tl.load(lengths + block)
        list_start = lists + block.to(tl.int64) * width
        row_start = x + rows.to(tl.int64)[:, None] * d
        reached = tl.load(own + rows, mask=rows < n, other=0.0)
        best = tl.full((ROWS,), float("-inf"), tl.float32)
        index = tl.zeros((ROWS,), tl.int32)
        for first in range(0, length, COLUMNS):
            places = first + tl.arange(0, COLUMNS)
            columns = tl.load(list_start + places, mask=places < length, other=0)
            column_start = centroids + columns.to(tl.int64)[None, :] * d
            scores = tl.zeros((ROWS, COLUMNS), tl.float32)
            for begin in range(0, d, DEPTH):
                at = begin + depth
                a = tl.load(row_start + at[None, :], mask=(rows[:, None] < n) & (at[None, :] < d), other=0.0)
                b = tl.load(column_start + at[:, None], mask=(places[None, :] < length) & (at[:, None] < d), other=0.0)
                scores = tl.dot(a, b, scores)
            scores += tl.load(bias + columns, mask=places < length, other=float("-inf"))[None, :]
            highest, where = tl.max(scores, axis=1, return_indices=True, return_indices_tie_break_left=True)
            better = highest > best  # lists ascend: the first of equals wins
            best = tl.where(better, highest, best)
            index = tl.where(better, first + where, index)
            reached = tl.maximum(reached, best)
            above = scores - reached[:, None]
            if SCALED:
                above = above * tl.load(scale + rows, mask=rows < n, other=1.0)[:, None]
            above = tl.where(rows[:, None] < n, above, float("-inf"))
            at_program = excess + program.to(tl.int64) * width
            tl.store(at_program + places, tl.max(above, axis=0), mask=places < length)
        found = tl.load(list_start + index, mask=rows < n, other=0)
        tl.store(nearest + rows, found.to(tl.int64), mask=rows < n)
        tl.store(top + rows, best, mask=rows < n)
