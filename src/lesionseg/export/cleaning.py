"""Cleaning of a mask in ONNX operations: the same as inference/postprocess.py, pixel for pixel.

OpenCV scans a mask and numbers the components it meets; a graph cannot. Here every pixel starts with a number of its
own and repeatedly takes the highest of its neighbours', until nothing changes: each component then has one number. In
each round a pixel also takes the number of the pixel that its number stands for, so that the rounds grow only with the
logarithm of a winding lesion's length.

Masks are float32 (1, 1, H, W) of 0 and 1.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lesionseg.inference.postprocess import Cleaning


def clean(mask: Tensor, cleaning: Cleaning) -> Tensor:
    """The operations of `cleaning`, in its order."""
    if cleaning.opening:
        mask = _open_disc(mask, cleaning.opening)
    if cleaning.keep_largest:
        mask = _largest_component(mask)
    if cleaning.fill_holes:
        mask = _filled(mask)
    return mask


def _open_disc(mask: Tensor, radius: int) -> Tensor:
    """Beyond the image's edge there is lesion for the erosion, and none for the dilation."""
    offsets = torch.arange(-radius, radius + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2)[None, None].float()
    eroded = (functional.conv2d(1 - mask, disc, padding=radius) < 0.5).float()
    return (functional.conv2d(eroded, disc, padding=radius) > 0.5).float()


def _largest_component(mask: Tensor) -> Tensor:
    """Of the 4-connected components with the most pixels, the first in reading order."""
    labels = _components()(mask, False).flatten()
    sizes = torch.zeros(labels.numel() + 1).scatter_add(0, labels, torch.ones(labels.numel()))
    sizes = torch.cat([torch.zeros(1), sizes[1:]])  # 0 is the background
    # of equally large ones the highest number, which is the first in reading order
    largest = len(sizes) - 1 - sizes.flip(0).argmax()
    return ((labels == largest) & (labels > 0)).float().reshape(mask.shape)


def _filled(mask: Tensor) -> Tensor:
    """Background (8-connected) that does not reach the edge becomes lesion; a frame makes the outside one component."""
    labels = _components()(functional.pad(1 - mask, (1, 1, 1, 1), value=1.0), True)
    outside = labels == labels[0, 0, 0, 0]
    return 1 - outside[:, :, 1:-1, 1:-1].float()


def _components() -> Callable[[Tensor, bool], Tensor]:
    return torch.jit.script(_labelled)


def _labelled(mask: Tensor, diagonal: bool) -> Tensor:
    """int64 like the mask: 0 where it is 0, else the highest number in the pixel's component.

    Numbers run from the number of pixels down to 1 in reading order, so a component has the number of its first pixel.
    """
    pixels = mask.shape[-2] * mask.shape[-1]
    own = torch.arange(pixels, 0, -1).reshape(mask.shape)
    labels = own * mask.long()
    changed = True
    while changed:
        near = labels.float()  # exact below 2^24 pixels
        if diagonal:
            near = functional.max_pool2d(near, 3, stride=1, padding=1)
        else:
            down = functional.max_pool2d(near, [3, 1], stride=1, padding=[1, 0])
            near = torch.maximum(down, functional.max_pool2d(near, [1, 3], stride=1, padding=[0, 1]))
        grown = near.long() * mask.long()
        of_number = torch.cat([torch.zeros(1, dtype=torch.long), grown.flatten().flip(0)])
        grown = torch.gather(of_number, 0, grown.flatten()).reshape(mask.shape)
        changed = bool((grown != labels).any())
        labels = grown
    return labels
