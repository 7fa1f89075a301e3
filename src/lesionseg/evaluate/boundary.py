"""Distances between the outline of a predicted mask and that of the true one.

An outline is the mask's pixels that have one of their four neighbours outside the mask; beyond the edge of the
image is outside. From every outline pixel of one mask, the distance to the nearest outline pixel of the other is
measured between pixel centres, in pixels, in both directions. A k-d tree of the outline finds it: its cost grows
with the outline, not with the area, which at native size is dozens of times less than a distance transform.
"""

from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import cKDTree

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class Distances(NamedTuple):
    """Boundary distances in pixels; definitions as in Metrics Reloaded (Maier-Hein et al. 2024, arXiv 2206.01653).

    `hd95`: the larger of the two directed 95th percentiles (Hausdorff distance without its outliers).
    `mean_surface`: average symmetric surface distance, the mean over the outline pixels of both masks.
    """

    hd95: float
    mean_surface: float


def distances(predicted: np.ndarray, truth: np.ndarray) -> Distances | None:
    """Boundary distances of two masks, uint8 (H, W), non-zero is lesion.

    Two empty masks agree: both distances are 0. One empty mask has no outline to measure from: None.
    """
    ours, theirs = outline(predicted), outline(truth)
    if not len(ours) and not len(theirs):
        return Distances(0.0, 0.0)
    if not len(ours) or not len(theirs):
        return None
    forth, _ = cKDTree(theirs).query(ours)
    back, _ = cKDTree(ours).query(theirs)
    return Distances(
        hd95=float(max(np.percentile(forth, 95), np.percentile(back, 95))),
        mean_surface=float((forth.sum() + back.sum()) / (len(forth) + len(back))),
    )


def outline(mask: np.ndarray) -> np.ndarray:
    """The outline pixels of a mask uint8 (H, W): int32 (points, 2), as x, y."""
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return np.empty((0, 2), np.int32)
    box = np.ascontiguousarray(mask[top : top + height, left : left + width])
    # outside the box is outside the mask: the box is tight, or ends where the image does
    inside = cv2.erode(box, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    points = cv2.findNonZero(cv2.compare(box, inside, cv2.CMP_NE)).reshape(-1, 2)
    return points + np.array([left, top], np.int32)


def touches_border(mask: np.ndarray) -> bool:
    """Whether any lesion pixel of a mask (H, W) lies on the edge of the image."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
