"""Where the time of a step goes: kernels of torch.profiler by what they do, and how long the card had none to run."""

import re
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu_measurements.clock import WARM_UP, synchronise
from gpu_measurements.report import Row

STEPS = 5
# the first pattern that is found in a kernel's name names its kind
KINDS = {
    "compiled": r"^triton",
    "batch norm": r"batch_?norm|bn_(fw|bw)|_bn_",
    "pooling": r"pool",
    "optimiser": r"adam|multi_tensor|foreach",
    "layout": r"nchwTonhwc|nhwcTonchw|transpose_readWrite|permute",
    "convolution": r"conv|xmma|cutlass|cudnn|gemm|wgrad|dgrad|winograd|nvjet|sm\d\d_",
    "concatenation": r"CatArray|aten::cat",
    "copies": r"memcpy|memset|copy_|fill",
    "reductions": r"reduce|softmax|sum|mean",
    "elementwise": r"elementwise|relu|threshold|sigmoid|add|mul|div",
}


def profiled(step: Callable[[], object], device: torch.device) -> tuple[list[Row], Row]:
    """(rows by kind, totals) of a step: milliseconds and launches, and the share of the time that the card was busy.

    On the CPU the operators take the kernels' place.
    """
    for _ in range(WARM_UP):
        step()
    synchronise(device)
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    synchronise(device)
    wall = 1000 * (time.perf_counter() - began) / STEPS  # without the profiler, which slows launches down

    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        for _ in range(STEPS):
            step()
        synchronise(device)
    wanted = DeviceType.CUDA if cuda else DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == wanted]
    names = {event.key: (_self_milliseconds(event, cuda) / STEPS, event.count / STEPS) for event in events}

    kinds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, (milliseconds, launches) in names.items():
        kinds[kind(name)][0] += milliseconds
        kinds[kind(name)][1] += launches
    busy = sum(milliseconds for milliseconds, _ in kinds.values())
    rows = [
        {"kind": name, "milliseconds": spent, "launches": launches, "share": spent / busy if busy else 0.0}
        for name, (spent, launches) in sorted(kinds.items(), key=lambda item: -item[1][0])
    ]
    longest = sorted(names.items(), key=lambda item: -item[1][0])[:25]
    totals = {
        "wall_milliseconds": wall,
        "busy_milliseconds": busy,
        "busy_share": busy / wall,
        "longest": [{"name": name, "milliseconds": spent, "launches": count} for name, (spent, count) in longest],
    }
    return rows, totals


def kind(name: str) -> str:
    """What a kernel of this name does."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), "other")


def _self_milliseconds(event, cuda: bool) -> float:
    return (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1000
