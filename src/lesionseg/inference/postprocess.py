"""What may be done to a prediction after the network: refine the probabilities, then clean the mask.

Everything works at the network's resolution. `imprint` carries a cleaned mask back into the probabilities, so
that enlarging those gives the same shape, smooth, at native size: one definition for both resolutions.
"""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Cleaning:
    """Operations on the thresholded mask, in this order. The defaults do nothing.

    `opening`: radius in pixels of a morphological opening (removes specks and thin bridges); 0: none.
    `keep_largest`: only the largest 4-connected component stays.
    `fill_holes`: background enclosed by lesion becomes lesion.
    """

    opening: int = 0
    keep_largest: bool = False
    fill_holes: bool = False

    def __bool__(self) -> bool:
        return self != Cleaning()

    def __call__(self, mask: np.ndarray) -> np.ndarray:
        """Clean a mask, uint8 (H, W) of 0 and 1, and return one like it."""
        if self.opening:
            mask = open_disc(mask, self.opening)
        if self.keep_largest:
            mask = largest_component(mask)
        if self.fill_holes:
            mask = filled(mask)
        return mask


def open_disc(mask: np.ndarray, radius: int) -> np.ndarray:
    """Morphological opening with a disc; beyond the image's edge the lesion counts as going on."""
    offsets = np.arange(-radius, radius + 1)
    disc = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, disc)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Keep the 4-connected component with the most pixels; of equal ones, the first in reading order."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    if count <= 2:
        return mask
    return (labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)


def filled(mask: np.ndarray) -> np.ndarray:
    """Fill the background components (8-connected) that do not reach the edge of the image."""
    _, labels = cv2.connectedComponents(1 - mask, connectivity=8)  # label 0: the lesion
    outside = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    return (~np.isin(labels, outside[outside != 0])).astype(np.uint8)


def cleaned(probabilities: np.ndarray, level: int, cleaning: Cleaning) -> tuple[np.ndarray, np.ndarray]:
    """Threshold 8-bit probabilities (H, W) and clean: the mask, uint8 (H, W), and probabilities that agree with it."""
    mask = (probabilities >= level).view(np.uint8)
    if not cleaning:
        return mask, probabilities
    mask = cleaning(mask)
    return mask, imprint(probabilities, mask, level)


def imprint(probabilities: np.ndarray, mask: np.ndarray, level: int) -> np.ndarray:
    """Change 8-bit probabilities (H, W) as little as it takes for `probabilities >= level` to be `mask`."""
    return np.where(mask, np.maximum(probabilities, level), np.minimum(probabilities, level - 1)).astype(np.uint8)
