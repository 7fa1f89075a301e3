"""Smooth outlines of masks, drawn over the photograph at the size of a picture to look at."""

from collections.abc import Mapping

import cv2
import numpy as np
from PIL import Image

TRUTH = "#56b4e9"  # sky blue: the true outline
PREDICTION = "#e69f00"  # orange: the predicted outline. Both from Okabe and Ito's (2008) colour-blind safe set

PANEL = 256  # pixels: up to this longer side lines have the width below; in larger pictures they grow with it
SUPERSAMPLING = 2  # outlines are drawn this much larger, so that their edges are smooth
EDGE = 1.5  # pixels between the edge of the photograph and the outline of a mask that reaches it
LINES = (  # mask, width in pixels, colour, opacity; drawn in this order, both outlines show where they coincide
    ("truth", 4.2, "#000000", 0.35),
    ("truth", 2.8, TRUTH, 1.0),
    ("predicted", 2.6, "#000000", 0.35),
    ("predicted", 1.5, PREDICTION, 1.0),
)


def outlined(image: np.ndarray, masks: Mapping[str, np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The photograph uint8 (H, W, 3) with outlines: uint8 (height, width, 3) for size (height, width).

    `masks` are uint8 (h, w) of 0 and 1, named `truth` and `predicted`; one may be missing. Where a mask reaches the
    edge of the photograph its outline runs along the edge: a mask that is all lesion is framed, an empty one has no
    outline.
    """
    thickness = max(1.0, max(size) / PANEL)
    picture = resized(image, size).astype(np.float32)
    distances = {name: _distance_to_border(mask, size) for name, mask in masks.items()}
    for name, width, colour, opacity in LINES:
        if name in distances:
            cover = opacity * np.clip(thickness * width / 2 + 0.5 - distances[name], 0, 1)[..., None]
            picture += cover * (np.array(hex_to_rgb(colour), np.float32) - picture)
    return np.rint(picture).astype(np.uint8)


def resized(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Antialiased when it shrinks, smooth when it grows: uint8 in, uint8 out."""
    if array.shape[:2] == size:
        return np.asarray(array)
    return np.asarray(Image.fromarray(np.asarray(array)).resize(size[::-1], Image.Resampling.BICUBIC))


def hex_to_rgb(colour: str) -> tuple[int, int, int]:
    """'#rrggbb' as three numbers of 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _distance_to_border(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Distance of each pixel to the mask's border, in pixels of `size`; infinite without lesion.

    Where a mask reaches the edge of the photograph, its border is EDGE pixels inside, so that the whole line shows.
    """
    large = (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING)
    inside = (resized(255 * mask, large) >= 128).astype(np.uint8)
    margin = round(SUPERSAMPLING * EDGE * max(1.0, max(size) / PANEL))
    inside[:margin] = inside[-margin:] = inside[:, :margin] = inside[:, -margin:] = 0
    if not inside.any():
        return np.full(size, np.inf, np.float32)
    exact = (cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    distance = cv2.distanceTransform(inside, *exact) + cv2.distanceTransform(1 - inside, *exact) - 0.5
    blocks = distance.reshape(size[0], SUPERSAMPLING, size[1], SUPERSAMPLING)
    return blocks.mean(axis=(1, 3)) / SUPERSAMPLING
