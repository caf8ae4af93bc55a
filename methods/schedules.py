"""Learning rates as functions of the step: nothing to save, nothing to lose."""

import math

from launcher.spec import TrainConfig


def learning_rate(config: TrainConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    """lr at `step` (0-based) of `steps`: linear warm-up from lr / 100, then constant or a cosine to 0 at the end."""
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return config.lr * (0.01 + 0.99 * step / warmup)
    if config.schedule == "constant":
        return config.lr
    return config.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
