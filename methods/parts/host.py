"""From host memory to the device that a step runs on."""

import numpy as np
import torch


def on_device(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """What lies in host memory, as a tensor on `device`: on a GPU a copy for which nothing waits, as it would for one
    from memory that is not pinned; on a CPU the same memory.

    >>> on_device(np.arange(3), torch.device("cpu")).tolist()
    [0, 1, 2]
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
