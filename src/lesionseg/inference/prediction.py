"""The network's probabilities for images of any number, a batch at a time, as 8-bit arrays.

In single precision, with TF32 off: the figures of an evaluation then depend neither on the batch size nor on
whether the hardware has a faster, coarser format.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lesionseg.inference.settings import VIEWS

PRECISION = "float32"  # of the forward pass, whatever the network was trained in
BATCH = {"cpu": 8, "cuda": 64}


class Prediction(NamedTuple):
    """uint8 (H, W) twice: round(255 p) of the image as it is, and of the average over all views."""

    plain: np.ndarray
    averaged: np.ndarray


def predict(
    model: nn.Module,
    images: np.ndarray,
    rows: Sequence[int],
    device: torch.device | str = "cpu",
    augmentation: str = "none",
) -> Iterator[Prediction]:
    """Yield the prediction for each of the `rows` of `images`, uint8 (N, H, W, 3) RGB, in that order.

    `augmentation` is a key of VIEWS: the probabilities (not the logits) of the image, of its mirror images and,
    with `flips_rotations`, of both turned by 90 degrees are turned back and averaged. Memory holds one batch.
    """
    if augmentation not in VIEWS:
        raise ValueError(f"augmentation is {augmentation!r}, expected one of {', '.join(VIEWS)}")
    device = torch.device(device)
    model = model.to(device, memory_format=torch.channels_last).eval()
    batch = BATCH.get(device.type, 8)
    for start in range(0, len(rows), batch):
        chosen = images[np.asarray(rows[start : start + batch])]
        with torch.inference_mode(), _single_precision():  # not around the yield: they would reach the caller
            inputs = torch.from_numpy(chosen).to(device).permute(0, 3, 1, 2).float() / 255
            # the last batch is filled up: an image's prediction must not depend on how many go with it
            inputs = functional.pad(inputs, (0, 0, 0, 0, 0, 0, 0, batch - len(chosen)))
            plain, averaged = (_quantised(view) for view in _views(model, inputs, augmentation))
        yield from map(Prediction, plain[: len(chosen)], averaged[: len(chosen)])


def _views(model: nn.Module, inputs: Tensor, augmentation: str) -> tuple[Tensor, Tensor]:
    """Probabilities (B, H, W) of the inputs, and their mean over the views."""
    plain = _probabilities(model, inputs)
    total = plain.clone()
    for view in range(1, VIEWS[augmentation]):
        flips = [axis for bit, axis in ((1, -1), (2, -2)) if view & bit]
        turns = 1 if view & 4 else 0
        seen = _probabilities(model, inputs.flip(flips).rot90(turns, (-2, -1)))
        total += seen.rot90(-turns, (-2, -1)).flip(flips)
    return plain, total / VIEWS[augmentation]


def _probabilities(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.sigmoid(model(inputs.contiguous(memory_format=torch.channels_last))).squeeze(1)


def _quantised(probabilities: Tensor) -> np.ndarray:
    return (probabilities * 255).round().to(torch.uint8).cpu().numpy()


@contextmanager
def _single_precision() -> Iterator[None]:
    """Full float32 in convolutions and products, by the same algorithm each time."""
    cudnn = torch.backends.cudnn
    operations = (cudnn.conv, torch.backends.cuda.matmul, torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul)
    formats = [operation.fp32_precision for operation in operations]
    before = (cudnn.benchmark, cudnn.deterministic)
    try:
        for operation in operations:
            operation.fp32_precision = "ieee"
        cudnn.benchmark, cudnn.deterministic = False, True
        yield
    finally:
        for operation, format in zip(operations, formats, strict=True):
            operation.fp32_precision = format
        cudnn.benchmark, cudnn.deterministic = before
