"""Edge-aware refinement of a probability map along the edges of its photograph."""

from collections.abc import Callable

import cv2
import numpy as np

RADIUS = 1 / 64  # of the image's longer side: half the window of the guided filter
EPSILON = 1e-3  # variance of the colours, in [0, 1], below which a window counts as flat


def guided_filter(probabilities: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Refine 8-bit probabilities (H, W) with the RGB image uint8 (H, W, 3) as guide; uint8 (H, W).

    He, Sun and Tang 2013, "Guided image filtering", with a colour guide: in every window the probabilities are
    fitted by a linear function of the colour, so that their edges move to the edges of the image. It is a fast
    local stand-in for a dense CRF, not one.
    """
    radius = max(1, round(max(image.shape[:2]) * RADIUS))
    guide, target = image.astype(np.float32) / 255, probabilities.astype(np.float32) / 255

    def mean(values: np.ndarray) -> np.ndarray:
        return cv2.blur(values, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    guide_mean, target_mean = mean(guide), mean(target)
    covariance = mean(guide * target[..., None]) - guide_mean * target_mean[..., None]
    products = (guide[..., :, None] * guide[..., None, :]).reshape(*target.shape, 9)
    variance = np.stack([mean(products[..., index]) for index in range(9)], -1).reshape(*target.shape, 3, 3)
    variance -= guide_mean[..., :, None] * guide_mean[..., None, :]
    slope = np.linalg.solve(variance + EPSILON * np.eye(3, dtype=np.float32), covariance[..., None])[..., 0]
    offset = target_mean - np.sum(slope * guide_mean, -1)
    refined = np.sum(mean(slope) * guide, -1) + mean(offset)
    return np.rint(np.clip(refined, 0, 1) * 255).astype(np.uint8)


REFINEMENTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray] | None] = {
    "none": None,
    "guided_filter": guided_filter,
}
