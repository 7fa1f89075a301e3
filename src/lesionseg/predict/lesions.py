"""A row of lesions.csv: what is measured of one predicted mask."""

from collections.abc import Sequence

import cv2
import numpy as np

from lesionseg.predict.model import Segmentation

UNDECIDED = (0.25, 0.75)  # probabilities between these count as undecided
COLUMNS = (
    "image", "mask", "width", "height", "lesion_pixels", "lesion_fraction", "left", "top", "right", "bottom",
    "components", "mean_probability", "undecided_fraction", "touches_edge",
)  # fmt: skip

_LEVELS = np.arange(256)
_UNDECIDED = (UNDECIDED[0] * 255 < _LEVELS) & (UNDECIDED[1] * 255 > _LEVELS)


def measured(segmentation: Segmentation) -> dict[str, int | str]:
    """The columns from `width` on: the bounding box in pixels, right and bottom exclusive, empty without lesion."""
    mask, probabilities = segmentation.mask, segmentation.probabilities
    height, width = mask.shape
    counts = _histogram(probabilities)  # everything about 8-bit probabilities is in it
    pixels = cv2.countNonZero(mask)
    row = {"width": width, "height": height, "lesion_pixels": pixels, "lesion_fraction": f"{pixels / mask.size:.6f}"}
    row |= dict.fromkeys(("left", "top", "right", "bottom"), "")
    row |= {"components": 0, "mean_probability": ""}
    if pixels:
        left, top, across, down = cv2.boundingRect(mask)
        row |= {"left": left, "top": top, "right": left + across, "bottom": top + down}
        cut = mask[top : top + down, left : left + across]
        row["components"] = cv2.connectedComponents(cut, connectivity=4)[0] - 1
        inside = _histogram(probabilities, mask)
        row["mean_probability"] = f"{inside @ _LEVELS / pixels / 255:.4f}"
    row["undecided_fraction"] = f"{counts[_UNDECIDED].sum() / mask.size:.6f}"
    row["touches_edge"] = int(pixels > 0 and (left == 0 or top == 0 or left + across == width or top + down == height))
    return row


def _histogram(levels: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """How often each of 256 levels occurs where the mask is 1, float64 (256)."""
    strips = _strips(levels)
    insides = [None] * len(strips) if mask is None else _strips(mask)
    counted = [
        cv2.calcHist([strip], [0], inside, [256], [0, 256]) for strip, inside in zip(strips, insides, strict=True)
    ]
    return np.sum(counted, axis=0, dtype=float).reshape(256)


def _strips(array: np.ndarray) -> Sequence[np.ndarray]:
    """Rows of less than 2^24 pixels together: OpenCV counts in float32."""
    rows = max(1, (1 << 24) // array.shape[1] - 1)
    return [array[start : start + rows] for start in range(0, len(array), rows)]
