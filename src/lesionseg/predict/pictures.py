"""Masks and probabilities as PNG, and the photograph with the outline of the lesion drawn on it."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from lesionseg.common.files import atomic
from lesionseg.inference.outline import PREDICTION, TRUTH, hex_to_rgb

QUALITY = 92  # of the overlay, a JPEG: as PNG, 12 megapixels take 20 MB and seconds

# The width of a line as a share of the longer side, so that it shows when the picture is shrunk to fit a screen, and at
# least so many pixels. A dark rim sets it off against both skin and lesion.
WIDTH, LEAST = 1 / 300, 2
RIM = 1.8  # times the width
COLOURS = {"truth": TRUTH, "predicted": PREDICTION}


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (height, width) as a grey PNG, without PNG's filters: a mask of 12 megapixels then takes a third of
    the time, and no more space."""
    kind = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    kind += [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_COMPRESSION, 1]
    _, content = cv2.imencode(".png", pixels, kind)
    with atomic(path) as temporary:
        temporary.write_bytes(content.tobytes())


def write_numbers(path: Path, probabilities: np.ndarray) -> None:
    """Write 8-bit probabilities as float32 from 0 to 1, for numpy.load."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, probabilities / np.float32(255))


def write_overlay(path: Path, photograph: np.ndarray, masks: Mapping[str, np.ndarray]) -> None:
    """Write the photograph, uint8 (height, width, 3), with the outlines of `masks`, as `overlay` takes them."""
    with atomic(path) as temporary:
        Image.fromarray(overlay(photograph, masks)).save(temporary, format="JPEG", quality=QUALITY)


def overlay(photograph: np.ndarray, masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """The photograph at its own size with the outlines of `masks`, uint8 (height, width) of 0 and 1, keys of COLOURS.

    Where a mask reaches the edge of the photograph, its outline runs along the edge, a line's width inside.
    """
    picture = photograph.copy()
    width = max(LEAST, round(max(picture.shape) * WIDTH))
    contours = {name: _contours(masks[name], width) for name in COLOURS if name in masks}
    for name, lines in contours.items():
        wider = 2 if len(contours) == 2 and name == "truth" else 1  # so that both show where they coincide
        cv2.drawContours(picture, lines, -1, (0, 0, 0), round(RIM * wider * width), cv2.LINE_AA)
        cv2.drawContours(picture, lines, -1, hex_to_rgb(COLOURS[name]), wider * width, cv2.LINE_AA)
    return picture


def _contours(mask: np.ndarray, margin: int) -> list[np.ndarray]:
    inside = mask.copy()
    margin = min(margin, (min(mask.shape) - 1) // 2)  # so that something is left of a mask that is all lesion
    if margin:
        inside[:margin] = inside[-margin:] = inside[:, :margin] = inside[:, -margin:] = 0
    return list(cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0])
