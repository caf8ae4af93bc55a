"""This rank's features, wherever they lie: in memory, on a GPU, or in a file larger than memory."""

import os

import numpy as np
import torch

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Features:
    """Rows [n, d] that are read a chunk at a time.

    given: a floating-point tensor on any device (torch.from_file makes one of a file), or a numpy array, also a
    memory-mapped one. device: where the arithmetic happens, that of the tensor by default; chunks go there.
    """

    def __init__(self, given: torch.Tensor | np.ndarray, device: torch.device | str | None = None):
        home = given.device if isinstance(given, torch.Tensor) else torch.device("cpu")
        self._given = given
        self.device = torch.device(device) if device is not None else home
        self.n, self.d = given.shape if self.complaint() is None else (0, 0)

    def __len__(self) -> int:
        return self.n

    @property
    def dtype(self) -> torch.dtype:
        if isinstance(self._given, torch.Tensor):
            return self._given.dtype
        kind = self._given.dtype
        return (
            {2: torch.float16, 4: torch.float32, 8: torch.float64}[kind.itemsize] if kind.kind == "f" else torch.int64
        )

    @property
    def scattered(self) -> bool:
        """Whether reading rows one by one, in any order, costs little: not where a file does not fit into memory."""
        given = self._given
        mapped = given.untyped_storage().filename if isinstance(given, torch.Tensor) else isinstance(given, np.memmap)
        return not mapped or given.nbytes < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2

    def complaint(self) -> str | None:
        """Why these are no features."""
        given = self._given
        if not isinstance(given, torch.Tensor | np.ndarray):
            return f"features: {type(given).__name__}; give a floating-point tensor [n, d] or a numpy array"
        supported = isinstance(given, torch.Tensor) or given.dtype.itemsize <= 8
        if given.ndim != 2 or not supported or self.dtype not in DTYPES:
            return f"features: {given.dtype} of shape {tuple(given.shape)}; give a floating-point tensor [n, d]"
        return None

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        """These rows on `device`, in the dtype in which they are kept; of a file only they are read.

        rows: a slice, or int64 indices on any device.
        """
        if isinstance(self._given, torch.Tensor):
            given = self._given.detach()
            some = given[rows] if isinstance(rows, slice) else given.index_select(0, rows.to(given.device))
            return some.to(self.device, non_blocking=True)
        where = rows if isinstance(rows, slice) else rows.cpu().numpy()
        # A copy, in this machine's byte order: a view would tie the tensor to the file.
        chunk = np.array(self._given[where], dtype=self._given.dtype.newbyteorder("="))
        return torch.from_numpy(chunk).to(self.device)


def first_bad_row(features: Features | torch.Tensor, chunk: int = 4096) -> int | None:
    """The first of the rows [n, d] with a NaN or an infinity; None where there is none."""
    for start in range(0, len(features), chunk):
        finite = features[start : start + chunk].isfinite().all(dim=1)
        if not finite.all():
            return start + int(finite.logical_not().nonzero()[0])
    return None


def where_they_fit(features: torch.Tensor, device: torch.device) -> torch.Tensor:
    """On the GPU when it has twice their room (96M x 4096 on 64 ranks: 25 GB each); else they are read from where they
    are, a chunk at a time."""
    if device.type == "cuda" and 2 * features.nbytes < torch.cuda.mem_get_info(device)[0]:
        return features.to(device)
    return features
