"""Refinement of a probability map by its photograph: pixels that are close and similar get similar labels."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

# The conditional random field. Lengths are shares of the image's longer side, so that they mean the same at every
# resolution; these values did best on real photographs (docs/evaluation.md).
WINDOW = 5  # a pixel is compared with this many on each side, `STEP` apart
STEP = 1 / 64
NEAR = 1 / 24  # standard deviation of the kernel in position
ALIKE = 0.03  # standard deviation of the kernel in colour, values in [0, 1]
WEIGHT = 3.0  # of the neighbours' votes against the network's logit
ITERATIONS = 5


def crf(probabilities: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Refine 8-bit probabilities (H, W) by the RGB image uint8 (H, W, 3); returns a CRF's marginals, uint8 (H, W).

    A conditional random field with the network's logits as unary terms and one Gaussian pairwise term in position and
    colour (Krähenbühl and Koltun 2011, arXiv 1210.5644), solved by mean-field iterations, the pairwise term limited to
    a local window (Teichmann and Cipolla 2018, arXiv 1805.04777). With two labels the Potts model needs one number per
    pixel: its logit is the network's plus the kernel-weighted mean of 2q - 1 over the neighbours in its window.
    """
    with torch.inference_mode():
        colours = torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)[None]
        return marginals(torch.from_numpy(probabilities.astype(np.float32) / 255), colours).numpy()


def marginals(probabilities: Tensor, colours: Tensor) -> Tensor:
    """`crf` on tensors: probabilities float32 (H, W) and colours (1, 3, H, W), in [0, 1] -> uint8 (H, W)."""
    step = max(1, round(STEP * max(map(int, colours.shape[-2:]))))
    unary = torch.logit(probabilities, eps=1 / 1024)
    kernel = _kernel(colours, step)
    strength = kernel.sum(0).clamp_min(1e-6)
    refined = torch.sigmoid(unary)
    for _ in range(ITERATIONS):
        votes = _window((2 * refined - 1)[None, None], step)[:, 0]
        refined = torch.sigmoid(unary + WEIGHT * (kernel * votes).sum(0) / strength)
    return (refined * 255).round().to(torch.uint8)


def _kernel(colours: Tensor, step: int) -> Tensor:
    """The Gaussian in position and colour between each pixel and the others in its window: (K, H, W)."""
    height, width = colours.shape[-2:]
    offsets = step * torch.arange(-WINDOW, WINDOW + 1, dtype=torch.float32)
    distance = (offsets[:, None] ** 2 + offsets**2).reshape(-1, 1, 1) / (NEAR * max(height, width)) ** 2
    difference = ((_window(colours, step) - colours) ** 2).sum(1) / ALIKE**2
    kernel = torch.exp(-(distance + difference) / 2) * _window(torch.ones(1, 1, height, width), step)[:, 0]
    kernel[len(kernel) // 2] = 0
    return kernel


def _window(values: Tensor, step: int) -> Tensor:
    """The window around each pixel, 0 beyond the image's edge: (1, C, H, W) -> (K, C, H, W)."""
    channels, (height, width) = values.shape[1], values.shape[-2:]
    side = 2 * WINDOW + 1
    padding = WINDOW * step
    columns = functional.unfold(values, side, dilation=step, padding=padding)
    return columns.reshape(channels, side * side, height, width).transpose(0, 1)


# By the names of settings.REFINEMENTS.
REFINERS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray] | None] = {"none": None, "crf": crf}
