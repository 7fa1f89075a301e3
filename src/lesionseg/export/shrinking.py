"""From a decoded photograph to the network's input, in ONNX operations: Pillow's antialiased shrinking.

Pillow's BILINEAR resizes along one axis, then the other. Each output pixel is a weighted sum of the pixels around it,
with weights that fall linearly over the reduction factor and have 22 fractional bits; the sum is rounded to 8 bits.
Here the graph computes the weights from the photograph's size, and the sums are the same integers: the result is
Pillow's to the bit, except for photographs so tall that Pillow resizes along their height first (height - size above
2 (width - size)), which can differ by 1 of 255.
"""

from typing import Any

import torch
from torch import Tensor

BITS = 22  # after the binary point of Pillow's filters


def shrink_photograph(photograph: Tensor, size: int) -> Tensor:
    """uint8 (height, width, 3) of any size -> uint8 (3, size, size)."""
    narrow = _resized(photograph.permute(1, 2, 0), size)  # (size, 3, height)
    return _resized(narrow.permute(2, 1, 0), size).permute(1, 0, 2)


def _resized(pixels: Tensor, outputs: int) -> Tensor:
    """Resize along the first axis: uint8 (inputs, A, B) -> uint8 (outputs, A, B)."""
    length = torch.as_tensor(pixels.shape[0]).reshape(1)  # the exporter would make a scalar single precision
    scale = length.double() / outputs
    reach = scale.clamp(min=1)
    centres = (torch.arange(outputs, dtype=torch.float64) + 0.5) * scale
    taps = torch.arange((2 * reach.ceil() + 2).squeeze(), dtype=torch.float64)  # type: ignore[call-overload]
    near = (centres - reach).floor()[:, None] + taps  # (outputs, taps), also beyond the edges
    weights = (1 - (near + 0.5 - centres[:, None]).abs() * (1 / reach)).clamp(min=0)
    weights = weights * ((near >= 0) & (near < length))
    fixed = (weights / weights.sum(1, keepdim=True) * 2**BITS + 0.5).floor().int()
    # products of bytes add up without rounding
    parts = torch.stack([fixed % 256, fixed // 256 % 256, fixed // 65536], 1).to(torch.uint8)
    chosen = pixels.flatten(1)[torch.minimum(near.long().clamp(min=0), length - 1)]  # (outputs, taps, A·B)
    low, middle, high = _Product.apply(parts, chosen).unbind(1)
    total = (low + 256 * middle + 65536 * high + 2 ** (BITS - 1)) // 2**BITS
    return total.clamp(0, 255).to(torch.uint8).reshape(outputs, pixels.shape[1], pixels.shape[2])


class _Product(torch.autograd.Function):
    """Matrix product of uint8 to int32: ONNX's MatMulInteger, which needs no copy of the photograph as floats."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        return (left.double() @ right.double()).int()  # exact; torch has no such product for uint8

    @staticmethod
    def symbolic(g: Any, left: Any, right: Any) -> Any:
        return g.op("MatMulInteger", left, right)
