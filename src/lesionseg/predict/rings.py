"""The exact outline of a mask: polygons along the edges of its pixels, from which the mask can be rebuilt exactly.

The top left corner of the picture is (0, 0), y points down, and the pixel in column x and row y is the square from
(x, y) to (x + 1, y + 1). A vertex is a corner of pixels: whole numbers from 0 to the width or height. (OpenCV's
contours run through the centres of the outermost pixels, half a pixel inside.)
"""

from typing import NamedTuple

import cv2
import numpy as np


class Polygon(NamedTuple):
    """One 4-connected component: its outer ring and its holes, each int (vertices, 2) of (x, y), not closed."""

    outer: np.ndarray
    holes: list[np.ndarray]


def polygons(mask: np.ndarray) -> list[Polygon]:
    """The 4-connected components of a mask, uint8 (H, W) of 0 and 1, from the top down. Holes are 8-connected.

    The outer ring runs clockwise as seen in the picture, holes the other way; no three vertices lie on one line.
    """
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return []
    inside = np.pad(mask[top : top + height, left : left + width], 1)
    _, components = cv2.connectedComponents(inside, connectivity=4)
    origin = np.array([left, top])
    found: dict[int, Polygon] = {}
    holes: list[tuple[int, np.ndarray]] = []
    for ring in _rings(inside):
        x, y = ring[0]  # the topmost vertex, of these the leftmost: the ring lies to its lower right
        if inside[y + 1, x + 1]:
            found[components[y + 1, x + 1]] = Polygon(ring + origin, [])
        else:
            holes.append((components[y, x + 1], np.roll(ring[::-1], 1, axis=0) + origin))
    for component, ring in holes:
        found[component].holes.append(ring)
    return list(found.values())


def mask_from_rings(rings: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """The mask, uint8 (H, W), of the pixels inside an odd number of rings: the inverse of `polygons`."""
    crossings = np.zeros((shape[0], shape[1] + 1), np.uint8)
    for ring in rings:
        for (x, y), (other_x, other_y) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if x == other_x:
                crossings[min(y, other_y) : max(y, other_y), x] ^= 1
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :-1]


def _rings(padded: np.ndarray) -> list[np.ndarray]:
    """The rings (vertices, 2) of (x, y) around all components, each from its topmost, leftmost vertex to the right.

    The outline turns at a corner where one or three of its four pixels are lesion, and twice, back to back, where two
    diagonal ones are. Along every row and column of corners, successive pairs of turns are the two ends of an edge.
    """
    upper_left, upper_right = padded[:-1, :-1], padded[:-1, 1:]
    lower_left, lower_right = padded[1:, :-1], padded[1:, 1:]
    odd = upper_left ^ upper_right ^ lower_left ^ lower_right
    diagonal = (upper_left == lower_right) & (upper_right == lower_left) & (upper_left != upper_right)
    y, x = np.nonzero(odd | diagonal)
    twice = diagonal[y, x]
    repeats = 1 + twice.astype(int)
    y, x, twice = (np.repeat(values, repeats) for values in (y, x, twice))
    # Of two turns at one corner, the first in reading order ends the edge from the left. It goes on upwards if the
    # upper left pixel is lesion and downwards if the lower left is, so that the two components do not touch.
    second = np.zeros(len(x), np.int64)
    second[1:] = (x[1:] == x[:-1]) & (y[1:] == y[:-1])
    downwards = np.where(upper_left[y, x] == 1, second, 1 - second) * twice
    along_columns = np.lexsort((downwards, y, x))
    across, along = np.empty(len(x), np.int64), np.empty(len(x), np.int64)
    across[0::2], across[1::2] = np.arange(1, len(x), 2), np.arange(0, len(x), 2)
    along[along_columns[0::2]], along[along_columns[1::2]] = along_columns[1::2], along_columns[0::2]
    other_end, onwards = across.tolist(), along.tolist()
    corners = np.column_stack([x, y])
    done = [False] * len(x)
    rings = []
    for first in range(len(x)):
        if done[first]:
            continue
        here, ring = first, []
        while not done[here]:
            ring += [here, other_end[here]]
            done[here] = done[other_end[here]] = True
            here = onwards[other_end[here]]
        rings.append(corners[ring])
    return rings
