"""The learning rate over the run, as a factor of the parameter `learning_rate`."""

import math
from collections.abc import Callable

from lesionseg.common.errors import InputError

NAMES = ("constant", "cosine")


def build(name: str, steps: int, warmup_steps: int = 0) -> Callable[[int], float]:
    """Return the factor, in (0, 1], as a function of the optimiser step 0 … steps - 1: it holds no state.

    The first `warmup_steps` rise linearly to 1 (Goyal et al. 2017, arXiv 1706.02677), with either schedule.
    Then `constant` stays there, and `cosine` falls along half a cosine wave towards 0, which it would reach
    at step `steps` (Loshchilov and Hutter 2017, arXiv 1608.03983, without restarts).
    """
    if name not in NAMES:
        raise InputError(f"schedule: found {name!r}, expected one of {', '.join(NAMES)}")
    if not 0 <= warmup_steps < steps:
        raise InputError(
            f"warmup_epochs: the warm-up takes {warmup_steps} of {steps} steps, expected fewer than all; "
            "lower warmup_epochs or raise epochs"
        )

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        if name == "constant":
            return 1.0
        return 0.5 + 0.5 * math.cos(math.pi * (step - warmup_steps) / (steps - warmup_steps))

    return factor
