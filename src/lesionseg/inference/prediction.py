"""The network's probabilities for any number of images, a batch at a time, as 8-bit arrays.

Computed in single precision with TF32 off, so that scores depend neither on the batch size nor on whether the hardware
has a faster, coarser number format.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lesionseg.common.errors import InputError
from lesionseg.common.parallel import ordered_map
from lesionseg.formats.processed import Rows
from lesionseg.inference.settings import VIEWS

PRECISION = "float32"  # of the forward pass, whatever the network was trained in
PACKAGES = ("torch", "numpy", "pillow", "opencv-python-headless")  # that compute a mask from a photograph

# Pixels in a batch. On a CPU one image of 256×256: the features of more do not fit its caches, and a batch of 8 took a
# third longer per image. On a GPU a U-Net of base width 64 needs 6.4 GiB for such a batch. Members and views are
# computed one after another and need no more.
PIXELS = {"cpu": 256 * 256, "cuda": 64 * 256 * 256}
MOST_IMAGES = {"cpu": 8, "cuda": 64}

# Batches that a CPU predicts side by side, one a core; with more cores than this, several cores share each. One image
# is too small to share: the cores would wait for each other at every layer, and OpenMP waits by spinning, which on a
# busy machine took 6 to 20 times the processor time. Memory grows with the number of batches.
MOST_AT_ONCE = 8


class Prediction(NamedTuple):
    """8-bit probabilities, round(255 p), uint8 (H, W): of the image as it is, and averaged over all views."""

    plain: np.ndarray
    averaged: np.ndarray


def package_versions() -> dict[str, str]:
    """The installed versions of the packages that compute a mask from a photograph."""
    return {package: version(package) for package in PACKAGES}


def predict(
    model: nn.Module,
    images: Rows,
    rows: Sequence[int],
    device: torch.device | str = "cpu",
    augmentation: str = "none",
) -> Iterator[Prediction]:
    """Yield the prediction for each of the `rows` of `images`, uint8 (N, H, W, 3) RGB, in that order: `stream`."""
    return stream(model, (images[row] for row in rows), device, augmentation)


def stream(
    model: nn.Module, images: Iterable[np.ndarray], device: torch.device | str = "cpu", augmentation: str = "none"
) -> Iterator[Prediction]:
    """Yield the prediction for each of the images, uint8 (H, W, 3) RGB of one size, in order.

    `augmentation` is a key of VIEWS: the probabilities (not the logits) of the image, of its mirror images and, with
    `flips_rotations`, of both turned by 90 degrees are mapped back and averaged.

    Memory holds one batch of `batch_size` images, on a CPU one a core; where that is too much for the device, the batch
    is halved from then on. Raises InputError where not even one image fits.
    """
    if augmentation not in VIEWS:
        raise ValueError(f"augmentation is {augmentation!r}, expected one of {', '.join(VIEWS)}")
    device = torch.device(device)
    model.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]  # torch's types lack it
    images = iter(images)
    first = list(islice(images, 1))
    if not first:
        return
    shape = first[0].shape[:2]
    batch = batch_size(device, shape)

    def predicted(waiting: Sequence[np.ndarray]) -> list[Prediction]:
        nonlocal batch
        done: list[Prediction] = []
        while waiting:
            size = batch
            predictions = _attempt(model, waiting[:size], size, device, augmentation)
            if predictions is None:
                batch = min(batch, _smaller(size, shape, device))
            else:
                done += predictions
                waiting = waiting[size:]
        return done

    images = chain(first, images)
    # around all: batches that run side by side would take each other's setting for the caller's, and leave it behind
    with _single_precision(device):
        for predictions in _side_by_side(predicted, iter(lambda: list(islice(images, batch)), []), device):
            yield from predictions


def _side_by_side(
    function: Callable[[Sequence[np.ndarray]], list[Prediction]],
    batches: Iterator[Sequence[np.ndarray]],
    device: torch.device,
) -> Iterator[list[Prediction]]:
    """`map(function, batches)`, on a CPU several batches at a time.

    A batch that comes alone has no more threads than one of many: into how many parts a convolution is split shows in
    the last bits, and a photograph must not get another mask when it is predicted by itself.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    if threads == 1:
        yield from map(function, batches)
        return
    at_once = min(threads, MOST_AT_ONCE)
    try:
        torch.set_num_threads(threads // at_once)  # of the threads that start from here on, each
        yield from ordered_map(function, batches, at_once)
    finally:
        torch.set_num_threads(threads)


def batch_size(device: torch.device, shape: tuple[int, int]) -> int:
    """How many images of the `shape` (height, width) to predict at once."""
    kind = device.type if device.type in PIXELS else "cpu"
    return min(MOST_IMAGES[kind], max(1, PIXELS[kind] // math.prod(shape)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or NumPy failed for want of memory, on a GPU or in the machine."""
    said = ("DefaultCPUAllocator", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in said)
    )


def _attempt(
    model: nn.Module, images: Sequence[np.ndarray], batch: int, device: torch.device, augmentation: str
) -> list[Prediction] | None:
    """The predictions for at most `batch` images; None where they do not fit into memory."""
    try:
        with torch.inference_mode():
            inputs = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 255
            # the last batch is padded: a prediction must not depend on how many images share its batch
            inputs = functional.pad(inputs, (0, 0, 0, 0, 0, 0, 0, batch - len(images)))
            plain, averaged = (quantised(view).cpu().numpy() for view in average_views(model, inputs, augmentation))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    return [Prediction(*each) for each in zip(plain[: len(images)], averaged[: len(images)], strict=True)]


def _smaller(batch: int, shape: tuple[int, int], device: torch.device) -> int:
    """Half the batch size, once the memory of the failed attempt is released."""
    if batch == 1:
        where = "the machine's memory" if device.type == "cpu" else f"the memory of {device}"
        cure = "; predict on the CPU, or train a narrower network" if device.type != "cpu" else ""
        raise InputError(f"one image of {shape[1]}×{shape[0]} pixels does not fit into {where}; free some{cure}")
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return batch // 2


def average_views(model: nn.Module, inputs: Tensor, augmentation: str) -> tuple[Tensor, Tensor]:
    """Probabilities (B, H, W) of the inputs, and their mean over the views."""
    plain = _probabilities(model, inputs)
    total = plain.clone()
    for view in range(1, VIEWS[augmentation]):
        flips = [axis for bit, axis in ((1, -1), (2, -2)) if view & bit]
        mirrored = inputs.flip(flips) if flips else inputs
        if view & 4:  # turned by 90 degrees; torch.onnx knows neither rot90 nor an empty flip
            seen = _probabilities(model, mirrored.flip(-1).transpose(-2, -1)).flip(-2).transpose(-2, -1)
        else:
            seen = _probabilities(model, mirrored)
        total += seen.flip(flips) if flips else seen
    return plain, total / VIEWS[augmentation]


def _probabilities(model: nn.Module, inputs: Tensor) -> Tensor:
    return torch.sigmoid(model(inputs.contiguous(memory_format=torch.channels_last))).squeeze(1)


def quantised(probabilities: Tensor) -> Tensor:
    """Probabilities as uint8; 255 stands for 1."""
    return (probabilities * 255).round().to(torch.uint8)


@contextmanager
def _single_precision(device: torch.device) -> Iterator[None]:
    """Full float32 in convolutions and matrix products on the device, with the same algorithm every time."""
    cudnn: Any = torch.backends.cudnn  # torch's types leave out the operations of both
    mkldnn: Any = torch.backends.mkldnn
    operations = (mkldnn.conv, mkldnn.matmul) if device.type == "cpu" else (cudnn.conv, torch.backends.cuda.matmul)
    formats = [operation.fp32_precision for operation in operations]
    before = (cudnn.benchmark, cudnn.deterministic)
    try:
        for operation in operations:
            operation.fp32_precision = "ieee"
        if device.type == "cuda":
            cudnn.benchmark, cudnn.deterministic = False, True
        yield
    finally:
        for operation, format in zip(operations, formats, strict=True):
            operation.fp32_precision = format
        if device.type == "cuda":
            cudnn.benchmark, cudnn.deterministic = before
