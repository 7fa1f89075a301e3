"""From the network's resolution to the photograph's, in ONNX operations: the same as inference/native.py.

Along each axis a resize is a product with a matrix that depends only on the two lengths. Where an axis grows, OpenCV's
weights are 8-bit fixed-point numbers and the sums below are exact in float32: the result is OpenCV's to the bit. Where
an axis shrinks (a photograph smaller than the network's input), it can differ by 1 of 255.
"""

import torch
from torch import Tensor


def enlarge(probabilities: Tensor, height: int, width: int) -> Tensor:
    """uint8 (S, S) -> uint8 (height, width): each axis first shrinks, if it does, then grows."""
    size = probabilities.shape[-1]
    tall, wide = _length(height), _length(width)
    low, narrow = tall.clamp(max=size), wide.clamp(max=size)
    smaller = (_area(size, low) @ (probabilities.double() @ _area(size, narrow).T)).round().float()
    grown = _linear(low, tall) @ (smaller @ _linear(narrow, wide).T)
    return (grown / 65536 + 0.5).floor().to(torch.uint8)


def _area(inputs: int, outputs: Tensor) -> Tensor:
    """INTER_AREA: each input pixel's share of the area of an output pixel, float64 (outputs, inputs)."""
    scale = inputs / outputs.double()
    left = _counting(outputs)[:, None] * scale
    pixels = torch.arange(inputs, dtype=torch.float64)
    covered = torch.minimum(left + scale, pixels + 1) - torch.maximum(left, pixels)
    return covered.clamp(min=0) / scale


def _linear(inputs: Tensor, outputs: Tensor) -> Tensor:
    """INTER_LINEAR_EXACT: weights of the two nearest pixels in units of 1/256, float32 (outputs, inputs)."""
    centres = (_counting(outputs) + 0.5) * (inputs.double() / outputs.double()) - 0.5
    centres = torch.minimum(centres.clamp(min=0), inputs.double() - 1)[:, None]
    left, pixels = centres.floor(), _counting(inputs)
    share = ((centres - left) * 256).round()
    return ((pixels == left) * (256 - share) + (pixels == left + 1) * share).float()


def _length(side: int) -> Tensor:
    return torch.as_tensor(side).reshape(1)  # the exporter would make a scalar single precision


def _counting(length: Tensor) -> Tensor:
    return torch.arange(length.squeeze(), dtype=torch.float64)  # type: ignore[call-overload]
