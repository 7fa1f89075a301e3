"""The bare training step, without loading, counting and history: the ceiling of the full loop, in every variant."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor

from gpu_measurements.clock import WARM_UP, block_seconds
from gpu_measurements.report import Row
from gpu_measurements.scale import Scale
from lesionseg import networks
from lesionseg.common.hardware import use_deterministic_algorithms
from lesionseg.train import losses, precision
from lesionseg.train.loop import unit_interval


@dataclass(frozen=True)
class Variant:
    """How a step is computed."""

    batch: int
    precision: str
    channels_last: bool = True
    deterministic: bool = True
    compile: str | None = None  # mode of torch.compile; reduce-overhead brings CUDA graphs
    graph: bool = False  # the whole step, optimiser included, recorded as one CUDA graph


def variants(batches: tuple[int, ...], formats: list[str], usual: str, cuda: bool) -> list[Variant]:
    """The usual variant at every batch size, then what each setting changes, one at a time; none is compiled."""
    changes = [{}, *({"precision": name} for name in formats if name != usual)]
    changes += [{"channels_last": False}, {"deterministic": False}]
    if cuda and usual != "fp16":  # the loss scaler asks each step whether to take it, which no graph can
        changes += [{"graph": True}, {"graph": True, "deterministic": False}]
    return [Variant(**{"batch": batch, "precision": usual} | change) for change in changes for batch in batches]


def compiled_variants(batches: tuple[int, ...], usual: str) -> list[Variant]:
    """The usual variant under torch.compile, which may take a minute for each."""
    changes = [
        {"compile": "reduce-overhead"},
        {"compile": "default"},
        {"compile": "reduce-overhead", "deterministic": False},
    ]
    return [Variant(**{"batch": batch, "precision": usual} | change) for change in changes for batch in batches]


def speed(variant: Variant, scale: Scale, images: np.ndarray, masks: np.ndarray, device: torch.device) -> Row:
    """Images a second of the step on images uint8 (N, H, W, 3) and masks uint8 (N, H, W), and the memory it takes."""
    gc.collect()  # compiled networks refer to themselves
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    try:
        step = build(variant, scale, images, masks, device)
        seconds = block_seconds(step, device, scale.seconds)
        row = {
            "images_per_second": variant.batch / median(seconds),
            "milliseconds": 1000 * median(seconds),
            "spread": (max(seconds) - min(seconds)) / median(seconds),
        }
        if device.type == "cuda":
            row["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        return row
    finally:
        use_deterministic_algorithms(True)
        torch.compiler.reset()


def build(
    variant: Variant, scale: Scale, images: np.ndarray, masks: np.ndarray, device: torch.device
) -> Callable[[], Tensor]:
    """Return the step: each call trains on the same batch, which lies on the device, and gives its losses (B,).

    As in lesionseg.train.loop: autocast, mean BCE + Dice, fused Adam on float32 weights.
    """
    use_deterministic_algorithms(variant.deterministic)
    dtype = precision.choose(variant.precision, device)
    rows = np.resize(np.arange(len(images)), variant.batch)
    batch = torch.from_numpy(images[rows]).to(device)
    targets = torch.from_numpy(masks[rows]).to(device).unsqueeze(1)

    torch.manual_seed(0)
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format
    model = networks.build(scale.network, scale.base_width).to(device, memory_format=layout).train()
    network = torch.compile(model, mode=variant.compile) if variant.compile else model
    loss = losses.build("bce_dice")
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0, fused=True, capturable=variant.graph)
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def step() -> Tensor:
        inputs = unit_interval(batch).contiguous(memory_format=layout)
        with precision.autocast(device, dtype):
            outputs = network(inputs)
        image_losses = loss(outputs, targets)
        scaler.scale(image_losses.mean()).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()
        return image_losses

    return _recorded(step) if variant.graph else step


def _recorded(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The step as one CUDA graph: a replay launches all its kernels at once, on the memory they were recorded with.

    WARM_UP steps are taken before the recording.

    Gradients are None when the recording starts, so that each replay writes them anew instead of adding to them.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # as torch asks: on another stream before the recording
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        image_losses = step()

    def replay() -> Tensor:
        graph.replay()
        return image_losses  # the same tensor, written anew

    return replay
