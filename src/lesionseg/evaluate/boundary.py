"""How close the outline of a predicted mask is to the true outline.

Definitions as in Metrics Reloaded (Maier-Hein et al. 2024, arXiv 2206.01653). An outline is the mask's pixels that
have at least one of their four neighbours outside the mask; everything beyond the edge of the image is outside. From
every outline pixel of one mask, the distance to the nearest outline pixel of the other is measured between pixel
centres, in both directions, with a k-d tree: its cost grows with the length of the outline, not with the area, and at
native size it is dozens of times faster than a distance transform.
"""

from math import hypot
from typing import NamedTuple

import cv2
import numpy as np
from scipy.spatial import cKDTree

TOLERANCE = 0.01  # of the image's diagonal: outlines this close count as the same
BAND = 0.02  # of the image's diagonal: width of the band inside an outline (Cheng et al. 2021, arXiv 2103.16562)

_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class Boundary(NamedTuple):
    """The distances between two outlines, and the scores made of them.

    `hd95`: the larger of the two directed 95th percentiles of the distances, in pixels (Hausdorff distance without
    its outliers). `mean_surface_distance`: the mean of the distances in both directions, in pixels (average symmetric
    surface distance). `normalised_surface_distance`: the share of both outlines that lies within `TOLERANCE`
    of the other. `boundary_iou`: intersection over union of the two masks' bands of width `BAND` along the outline.
    """

    hd95: float
    mean_surface_distance: float
    normalised_surface_distance: float
    boundary_iou: float


def compare_boundaries(predicted: np.ndarray, truth: np.ndarray) -> Boundary:
    """Compare two masks of one shape, uint8 (H, W), non-zero is lesion.

    Two empty masks agree perfectly. Where only one is empty, a lesion was missed or invented: the distances are the
    image's diagonal, the largest possible, and the scores 0, so that predicting nothing never pays.
    """
    diagonal = hypot(*truth.shape)
    ours, theirs = outline(predicted), outline(truth)
    if not len(ours) and not len(theirs):
        return Boundary(0.0, 0.0, 1.0, 1.0)
    if not len(ours) or not len(theirs):
        return Boundary(diagonal, diagonal, 0.0, 0.0)
    forth, _ = cKDTree(theirs).query(ours)
    back, _ = cKDTree(ours).query(theirs)
    both = np.concatenate([forth, back])
    return Boundary(
        hd95=float(max(np.percentile(forth, 95), np.percentile(back, 95))),
        mean_surface_distance=float(both.mean()),
        normalised_surface_distance=float(np.mean(both <= TOLERANCE * diagonal)),
        boundary_iou=_boundary_iou(predicted, truth, max(1, round(BAND * diagonal))),
    )


def outline(mask: np.ndarray) -> np.ndarray:
    """The outline pixels of a mask uint8 (H, W): int32 (points, 2), as x, y."""
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return np.empty((0, 2), np.int32)
    box = np.ascontiguousarray(mask[top : top + height, left : left + width])
    # the box is tight, or ends where the image does: everything outside it is outside the mask
    inside = cv2.erode(box, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    points = cv2.findNonZero(cv2.compare(box, inside, cv2.CMP_NE)).reshape(-1, 2)
    return points + np.array([left, top], np.int32)


def touches_border(mask: np.ndarray) -> bool:
    """Whether any lesion pixel of a mask (H, W) lies on the edge of the image."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _boundary_iou(predicted: np.ndarray, truth: np.ndarray, width: int) -> float:
    left, top, columns, rows = cv2.boundingRect(predicted | truth)
    bands: list[np.ndarray] = []
    for mask in (predicted, truth):
        box = np.ascontiguousarray(mask[top : top + rows, left : left + columns] != 0).view(np.uint8)
        square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
        inside = cv2.erode(box, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        bands.append(np.asarray(cv2.subtract(box, inside)))
    return cv2.countNonZero(bands[0] & bands[1]) / cv2.countNonZero(bands[0] | bands[1])
