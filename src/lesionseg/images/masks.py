"""Lesion masks: what counts as binary, and how a mask shrinks.

A mask file is grey or in colours that are grey (alpha on black). It is taken for binary when, in this order,

1. it holds no value but 0 and 255, or, in 16 bits, 0 and one of 65535, 255 and 1;
2. it holds no value but 0 and 1, and its format is lossless (in a JPEG, 0 and 1 are two shades of black);
3. it is a palette image that uses no index but 0 and 1 (whatever their colours);
4. it is nearly so, as JPEG or a smoothing resize leaves it: at least 95 % of the pixels within 32 of 0 or 255, and
   in a lossless format some within 32 of 255 (or else 0, 1, 2 would pass for black); then lesion is 128 and above.

Anything else is refused, since a photograph, a probability map or a label map is not a mask.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from lesionseg.images.decoding import LOSSY_FORMATS, Decoded, ImageError, decode, to_rgb

NOISE = 32  # grey levels from 0 or 255 that still count as black or white
NEARLY = 0.95  # share of the pixels that must be that close


def read_mask(path: str | Path) -> np.ndarray:
    """Decode a mask at its native size, upright: uint8 (height, width) of 0 and 1. Raises ImageError."""
    mask, _ = binary(decode(path))
    return np.asarray(mask) // np.uint8(255)


def binary(decoded: Decoded) -> tuple[Image.Image, int]:
    """Turn a decoded mask into an upright grey image of 0 and 255 by the rule above, and count its lesion pixels.

    Raises ImageError when the mask is not binary by that rule.
    """
    image = decoded.image
    if image.mode.startswith("I"):
        grey = _from_integers(np.asarray(image))
    elif image.mode == "L" and "transparency" not in image.info:
        grey = image
    else:
        grey = to_rgb(image).convert("L")
    counts = np.array(grey.histogram())
    used = np.flatnonzero(counts)
    lossless = image.format not in LOSSY_FORMATS
    if used[0] in (0, 255) and used[-1] in (0, 255) and len(used) <= 2:
        return decoded.upright(grey), int(counts[255])
    if lossless and used[-1] == 1:
        return decoded.upright(grey.point([0] + [255] * 255)), int(counts[1])
    if lossless and image.mode == "P" and image.getextrema()[1] <= 1:
        indices = np.asarray(image)
        return decoded.upright(Image.fromarray(indices * np.uint8(255))), int(indices.sum())
    black, white = counts[: NOISE + 1].sum(), counts[255 - NOISE :].sum()
    if black + white >= NEARLY * counts.sum() and (white or not lossless):
        return decoded.upright(grey.point([0] * 128 + [255] * 128)), int(counts[128:].sum())
    raise ImageError(_refusal(used))


def shrink(mask: Image.Image, size: int) -> np.ndarray:
    """Resize a 0/255 mask to a square of `size` pixels: uint8 (size, size) of 0 and 1.

    A pixel is lesion where at least half of the native pixels whose centres it covers are (to the rounding of 8
    bits: 127 of 255 and above). A mask smaller than `size` grows by nearest-neighbour.
    """
    area = mask.resize((size, size), Image.Resampling.BOX)
    return (np.asarray(area) >= 127).astype(np.uint8)


def _from_integers(values: np.ndarray) -> Image.Image:
    """A 16- or 32-bit grey mask: 0 and one of 1, 255, 65535."""
    top = int(values.max())
    used = np.unique(values)
    if top not in (0, 1, 255, 65535) or not np.isin(used, (0, top)).all():
        raise ImageError(_refusal(used))
    lesion = values > 0
    return Image.fromarray(lesion.astype(np.uint8) * np.uint8(255))


def _refusal(used: np.ndarray) -> str:
    shown = ", ".join(str(value) for value in used[:4]) + (", …" if len(used) > 4 else "")
    return f"has {len(used)} grey values ({shown}), expected a binary mask: 0 and 255, or 0 and 1"
