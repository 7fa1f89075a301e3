"""A row of lesions.csv: the measurements of one predicted mask."""

import math

import cv2
import numpy as np

from lesionseg.predict.model import Segmentation

UNDECIDED = (0.25, 0.75)  # probabilities between these count as undecided
COLUMNS = (
    "image", "mask", "width", "height", "lesion_pixels", "lesion_fraction", "left", "top", "right", "bottom",
    "components", "mean_probability", "undecided_fraction", "touches_edge",
)  # fmt: skip

_UNDECIDED = (math.floor(UNDECIDED[0] * 255) + 1, math.ceil(UNDECIDED[1] * 255) - 1)  # as 8-bit levels, both inclusive


def measured(segmentation: Segmentation) -> dict[str, int | str]:
    """The columns from `width` on. The bounding box is in pixels, right and bottom exclusive, empty without lesion."""
    mask, probabilities = segmentation.mask, segmentation.probabilities
    height, width = mask.shape
    pixels = cv2.countNonZero(mask)
    row = {"width": width, "height": height, "lesion_pixels": pixels, "lesion_fraction": f"{pixels / mask.size:.6f}"}
    row |= dict.fromkeys(("left", "top", "right", "bottom"), "")
    row |= {"components": 0, "mean_probability": ""}
    if pixels:
        left, top, across, down = cv2.boundingRect(mask)
        row |= {"left": left, "top": top, "right": left + across, "bottom": top + down}
        box = slice(top, top + down), slice(left, left + across)
        row["components"] = components(mask[box])
        row["mean_probability"] = f"{cv2.sumElems(probabilities[box] * mask[box])[0] / pixels / 255:.4f}"
    undecided = cv2.countNonZero(cv2.inRange(probabilities, *_UNDECIDED))
    row["undecided_fraction"] = f"{undecided / mask.size:.6f}"
    row["touches_edge"] = int(pixels > 0 and (left == 0 or top == 0 or left + across == width or top + down == height))
    return row


def components(mask: np.ndarray) -> int:
    """The number of 4-connected components of a mask, uint8 (H, W) of 0 and 1.

    OpenCV's contours are faster than labelling every pixel, but those of 8-connected components; the number is the same
    unless two pixels touch only at a corner.
    """
    steps = mask[:, 1:] ^ mask[:, :-1]
    both = np.flatnonzero(steps[1:] & steps[:-1])  # one step up and one down here: two pixels meet at a corner
    if len(both) and (mask[1:, :-1] ^ mask[:-1, :-1]).ravel()[both].any():
        return cv2.connectedComponents(mask, connectivity=4)[0] - 1
    _, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return int(np.count_nonzero(hierarchy[0, :, 3] < 0))  # contours without a parent; the others are holes
