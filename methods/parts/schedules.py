"""Learning rates and all else that moves with time, as functions of the step: nothing to save, nothing to lose."""

import math

from launcher.spec.schema import TrainConfig


def linear(step: float, steps: float, start: float, end: float) -> float:
    """From `start` at step 0 to `end` at `steps` and ever after.

    SMoG's beta is linear(step, steps, 1.0, 0.99); the temperature of DINO's teacher linear(epoch, 30, 0.04, 0.07).
    """
    return end if step >= steps else start + (end - start) * step / steps


def cosine(step: float, steps: float, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at `steps` and ever after (Loshchilov & Hutter 2016).

    DINO's weight decay is cosine(step, steps, 0.04, 0.4); the momentum of its teacher, as of BYOL's target,
    cosine(step, steps, 0.996, 1.0).
    """
    if step <= 0 < steps:
        return start  # which rounding would miss
    return end if step >= steps else end + (start - end) * 0.5 * (1 + math.cos(math.pi * step / steps))


def learning_rate(config: TrainConfig, step: int, steps: int, steps_per_epoch: int) -> float:
    """lr at `step` (0-based) of `steps`: linear warm-up from `warmup_lr`, then constant or a cosine to `final_lr`.

    SwAV's 0.3 -> 4.8 -> 0.0048 is warmup_lr=0.3, lr=4.8, final_lr=0.0048 and warmup_epochs=10.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if step < warmup:
        start = 0.01 if config.warmup_lr is None else config.warmup_lr / config.lr
        return config.lr * linear(step, warmup, start, 1.0)
    if config.schedule == "constant":
        return config.lr
    return cosine(step - warmup, max(1, steps - warmup), config.lr, config.final_lr)
