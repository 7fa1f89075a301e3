"""From the network's resolution to the original image's, where the official score is taken."""

import cv2
import numpy as np


def resize(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize 8-bit probabilities (H, W) to the `shape` (height, width) of the original, uint8.

    Each axis on its own: area averages where it shrinks, bilinear in OpenCV's bit-exact fixed-point form where it
    grows. (OpenCV's INTER_AREA stops averaging as soon as one axis grows.)
    """
    height, width = shape
    smaller = min(height, probabilities.shape[0]), min(width, probabilities.shape[1])
    if smaller != probabilities.shape:
        probabilities = cv2.resize(probabilities, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != (height, width):
        probabilities = cv2.resize(probabilities, (width, height), interpolation=cv2.INTER_LINEAR_EXACT)
    return probabilities


def mask_at(probabilities: np.ndarray, shape: tuple[int, int], level: int) -> np.ndarray:
    """The predicted mask at native size: uint8 (height, width), 1 where the resized probability is >= level."""
    return (resize(probabilities, shape) >= level).view(np.uint8)
