"""Time on a device that works behind Python's back."""

import time
from collections.abc import Callable
from statistics import median

import torch

WARM_UP = 3  # calls before the clock runs: kernels are loaded, algorithms chosen, memory taken
BLOCKS = 5


def synchronise(device: torch.device) -> None:
    """Wait until all work given to `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def block_seconds(
    call: Callable[[], object], device: torch.device, budget: float, warm_up: int = WARM_UP, blocks: int = BLOCKS
) -> list[float]:
    """Seconds of one call, from each of `blocks` blocks of calls that fill about `budget` seconds together.

    Waiting only between blocks: calls follow each other as they do in a training, so that Python's time counts only
    where the device waits for it.
    """
    for _ in range(warm_up):
        call()
    synchronise(device)
    began = time.perf_counter()
    call()
    synchronise(device)
    repetitions = max(1, round(budget / blocks / max(time.perf_counter() - began, 1e-6)))
    seconds = []
    for _ in range(blocks):
        began = time.perf_counter()
        for _ in range(repetitions):
            call()
        synchronise(device)
        seconds.append((time.perf_counter() - began) / repetitions)
    return seconds


def median_seconds(call: Callable[[], object], device: torch.device, budget: float, **options: int) -> float:
    """Seconds of one call: the median of `block_seconds`."""
    return median(block_seconds(call, device, budget, **options))
