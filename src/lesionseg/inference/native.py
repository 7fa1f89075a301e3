"""From the network's resolution to the original image's, where the official score is taken."""

import cv2
import numpy as np


def resize(probabilities: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize 8-bit probabilities (H, W) to the `shape` (height, width) of the original, uint8.

    Bilinear where it enlarges, in OpenCV's bit-exact fixed-point form; area averages where it shrinks.
    """
    height, width = shape
    shrinks = height < probabilities.shape[0] or width < probabilities.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR_EXACT
    return cv2.resize(probabilities, (width, height), interpolation=method)


def mask_at(probabilities: np.ndarray, shape: tuple[int, int], level: int) -> np.ndarray:
    """The predicted mask at native size: uint8 (height, width), 1 where the resized probability is >= level."""
    return (resize(probabilities, shape) >= level).view(np.uint8)
