"""What makes a photograph hard to segment: little contrast between lesion and skin, and hair over both."""

import cv2
import numpy as np

RING = 0.08  # of the longer side: width of the ring of skin that a lesion is compared with
BLACK = 12  # CIELAB lightness (0 to 100) below which a pixel is the dark frame of the lens, not skin
DARK, LINE, LENGTH = 8, 9 / 256, 0.15  # a hair: how much darker than its surroundings; width and length / longer side
EDGE = 0.015  # of the longer side: a margin that is not searched, where lines are the edge of the image


def contrast(image: np.ndarray, mask: np.ndarray) -> float:
    """The colour difference between a lesion and the skin around it: CIE 1976 Delta E*ab of their median colours.

    `image` is uint8 (H, W, 3) RGB, `mask` uint8 (H, W). A difference of 2 is just visible. NaN where there is no
    lesion, or no skin around it in the picture.
    """
    width = max(1, round(RING * max(mask.shape)))
    around = cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))) > mask
    colours = _lab(image)
    skin = around & (colours[..., 0] >= BLACK)
    if not mask.any() or not skin.any():
        return float("nan")
    return float(np.linalg.norm(np.median(colours[mask != 0], axis=0) - np.median(colours[skin], axis=0)))


def hair(image: np.ndarray) -> float:
    """The share of an image, uint8 (H, W, 3) RGB, that is covered by long thin dark lines.

    A morphological closing fills thin dark structures (the first step of DullRazor, Lee et al. 1997); those that are
    long enough count as hairs. So do the marks of a ruler, which cover 1 % at most, and sometimes skin-marker lines.
    """
    lightness, side = _lab(image)[..., 0], max(image.shape[:2])
    width = max(3, round(LINE * side))
    filled_in = cv2.morphologyEx(
        lightness, cv2.MORPH_BLACKHAT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    )
    lines = (filled_in >= DARK).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    long = np.hypot(stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT]) >= LENGTH * side
    long[0] = False  # the background
    edge = max(1, round(EDGE * side))
    return float(np.mean(long[labels][edge:-edge, edge:-edge]))


def _lab(image: np.ndarray) -> np.ndarray:
    """CIELAB float32 (H, W, 3) of an sRGB image: lightness 0 to 100."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
