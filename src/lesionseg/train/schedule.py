"""The learning rate over the run, as a factor of the parameter `learning_rate`."""

import math
from collections.abc import Callable

from lesionseg.common.errors import InputError


def constant(step: int, steps: int) -> float:
    return 1.0


def cosine(step: int, steps: int) -> float:
    """Half a cosine wave towards 0, which it would reach at step `steps` (Loshchilov and Hutter 2017,
    arXiv 1608.03983, without restarts)."""
    return 0.5 + 0.5 * math.cos(math.pi * step / steps)


SCHEDULES = {"constant": constant, "cosine": cosine}


def learning_rate_factor(schedule: str, steps: int, warmup_steps: int = 0) -> Callable[[int], float]:
    """Return the factor, in (0, 1], as a function of the optimiser step 0 … steps - 1: it holds no state.

    It rises linearly to 1 in the first `warmup_steps` (Goyal et al. 2017, arXiv 1706.02677); the other steps follow the
    `schedule`, one of SCHEDULES.
    """
    if not 0 <= warmup_steps < steps:
        raise InputError(
            f"params.yaml: train.warmup_epochs: the warm-up takes {warmup_steps} of {steps} steps, expected fewer than "
            "all; lower it or raise train.epochs"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return SCHEDULES[schedule](step - warmup_steps, steps - warmup_steps)

    return factor
