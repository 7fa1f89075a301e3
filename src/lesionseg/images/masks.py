"""Lesion masks: what counts as black and white, and how masks are shrunk.

A mask file is grey, or in colours that are all grey; transparent pixels count as black. The first rule that fits
applies:

1. exact: only 0 and 255, or, in 16 or 32 bits, 0 and one of 65535, 255 and 1;
2. only 0 and 1, in a lossless format (in a JPEG, 0 and 1 are two shades of black, refused if they fill areas);
3. nearly black and white, as after JPEG or a smoothing resize: at least 95 % of the pixels within 32 of 0 or 255,
   spread over neighbouring values; 128 and above is lesion.

Everything else is refused: photographs, probability maps, colours (in a palette image the colour counts, not the
index), and label maps. A label map with 255 among its values, such as 0 background, 1 lesion, 255 ignore, is also
nearly black and white; it differs from noise in that its values are few and exact, or fill areas. The user must say
what its values stand for: download.labels reads masks by named values or colours.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from lesionseg.images.decoding import LOSSY_FORMATS, Decoded, ImageError, decode, to_rgb

NOISE = 32  # grey levels from 0 or 255 that still count as black or white
NEARLY = 0.95  # share of the pixels that must be that close
FEW = 6  # an image with at most this many values has labels, unless they form a soft edge
# A square of one value and this width, in pixels, is an area. Blocks of noise are 8 wide in JPEG, and 16 in WebP, which
# predicts one from another; no noise is half-way between black and white.
AREA, WEBP_AREA, MIDDLE_AREA = 11, 35, 5
EDGE = 1.5  # pixels of a soft edge with few values, at most, per pixel of the outline

SHOWN = 6  # values or colours that a message lists, the most frequent ones
NAMED = 64  # a mask with at most this many values or colours may hold labels: the message proposes to name them


def read_mask(path: str | Path) -> np.ndarray:
    """Decode a mask at its native size, upright: uint8 (height, width) of 0 and 1. Raises ImageError."""
    mask, _ = binary(decode(path))
    return np.asarray(mask) // np.uint8(255)


def binary(decoded: Decoded) -> tuple[Image.Image, int]:
    """Turn a decoded mask into an upright grey image of 0 and 255 by the rules above, and count its lesion pixels.

    Raises ImageError if the mask is not black and white by these rules.
    """
    kind = decoded.image.format
    lossless = kind not in LOSSY_FORMATS
    grey = _grey(decoded.image, lossless)
    if decoded.halved and not grey.getbbox():
        raise ImageError(
            "has 16-bit colours, none of them above 255 of 65535, expected 65535 for white; save it with 8 bits"
        )
    counts = np.array(grey.histogram())
    used = np.flatnonzero(counts)
    if used[0] in (0, 255) and used[-1] in (0, 255) and len(used) <= 2:
        return decoded.upright(grey), int(counts[255])
    if lossless and used[-1] == 1:
        return decoded.upright(grey.point([0] + [255] * 255)), int(counts[1])
    black, white = counts[: NOISE + 1].sum(), counts[255 - NOISE :].sum()
    only_black = not lossless and black == counts.sum()
    nearly = black + white >= NEARLY * counts.sum() and white
    area = WEBP_AREA if kind == "WEBP" else AREA
    if (only_black or nearly) and not _has_labels(np.asarray(grey), used, lossless, area):
        return decoded.upright(grey.point([0] * 128 + [255] * 128)), int(counts[128:].sum())
    raise ImageError(refusal("grey values", [(str(value), int(counts[value])) for value in used]))


def shrink(mask: Image.Image, size: int) -> np.ndarray:
    """Resize a 0/255 mask to a square of `size` pixels: uint8 (size, size) of 0 and 1.

    A pixel is lesion if at least half of the native pixels whose centres it covers are (rounded to 8 bits: 127 of 255
    and above). A mask smaller than `size` is enlarged by nearest neighbour; one that is smaller along only one axis is
    enlarged linearly there, as its image is, after the other axis has been shrunk.
    """
    width, height = mask.size
    mixed = (width < size) != (height < size)
    area = mask.resize((min(width, size), min(height, size)) if mixed else (size, size), Image.Resampling.BOX)
    if mixed:
        area = area.resize((size, size), Image.Resampling.BILINEAR)
    return (np.asarray(area) >= 127).astype(np.uint8)


def visible_colour(image: Image.Image) -> tuple[Image.Image, np.ndarray | None]:
    """(RGB, black where it is transparent; alpha uint8 (height, width), or None if nothing is transparent)."""
    if "transparency" not in image.info and image.mode not in ("LA", "La", "PA", "RGBA", "RGBa"):
        return to_rgb(image), None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return to_rgb(image), None if alpha.min() == 255 else alpha


def named_colours(image: Image.Image) -> list[tuple[str, int]]:
    """The colours of an RGB image, as #rrggbb, with their numbers of pixels."""
    packed = np.asarray(image, np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    used, pixels = np.unique(packed, return_counts=True)
    return [(f"#{colour:06x}", count) for colour, count in zip(used.tolist(), pixels.tolist(), strict=True)]


def refusal(kind: str, found: list[tuple[str, int]]) -> str:
    """The message for a mask that is not black and white, with what was `found`: (value or colour, pixels)."""
    total = sum(pixels for _, pixels in found)
    frequent = sorted(found, key=lambda item: -item[1])[:SHOWN]
    shown = ", ".join(f"{value}: {share(pixels / total)}" for value, pixels in frequent)
    more = ", …" if len(found) > SHOWN else ""
    cure = (
        "; say which of them are lesion with download.mask_lesion, and which to leave out with download.mask_void"
        if len(found) <= NAMED
        else ""
    )
    kind = kind.removesuffix("s") if len(found) == 1 else kind
    return f"has {len(found)} {kind} ({shown}{more}), expected a binary mask: 0 and 255, or 0 and 1{cure}"


def share(fraction: float) -> str:
    """A share of an image in words: `12 %`, `0.3 %`, `below 0.1 %`."""
    if 0 < fraction < 0.001:
        return "below 0.1 %"
    return f"{fraction:.1%}".replace(".0%", "%").replace("%", " %")


def _grey(image: Image.Image, lossless: bool) -> Image.Image:
    """The mask as 8-bit grey. Raises ImageError for colours, and for shapes that only the transparency shows."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_numbers(np.asarray(image))
    if image.mode in ("L", "1") and "transparency" not in image.info:
        return image if image.mode == "L" else image.convert("L")
    colour, alpha = visible_colour(image)
    if alpha is not None:
        _check_transparency(image, colour, alpha)
    pixels = np.asarray(colour)
    brightest, darkest = pixels.max(2), pixels.min(2)
    if not np.array_equal(brightest, darkest):
        coloured = np.count_nonzero(brightest - darkest > NOISE)
        colours = colour.getcolors(NAMED)
        exact = lossless and colours is not None and (coloured or len(colours) <= FEW)
        if exact or coloured > (1 - NEARLY) * np.count_nonzero(brightest > NOISE):
            raise ImageError(refusal("colours", named_colours(colour)))
    return colour.convert("L")


def _check_transparency(image: Image.Image, colour: Image.Image, alpha: np.ndarray) -> None:
    middle = np.count_nonzero((alpha > NOISE) & (alpha < 255 - NOISE))
    if middle > (1 - NEARLY) * alpha.size:
        raise ImageError(
            f"is semi-transparent in {share(middle / alpha.size)} of its pixels, expected a mask in black and white; "
            "save it without transparency"
        )
    opaque = alpha >= 128
    if not opaque.any() and np.ptp(np.asarray(image.convert("RGBA"))[..., :3], axis=(0, 1)).any():
        raise ImageError(
            "is transparent all over, though its colours differ, expected a mask in black and white; save it without "
            "transparency"
        )
    if opaque.any() and np.asarray(colour)[opaque].max() <= NOISE:
        raise ImageError(
            f"is black where it is opaque ({share(opaque.mean())}) and transparent elsewhere, expected white and "
            "black; say which is lesion with download.mask_lesion: opaque or transparent"
        )


def _from_numbers(values: np.ndarray) -> Image.Image:
    """A grey mask of 16 or 32 bits, of 0 and one of 1, 255, 65535, as 8 bits."""
    used, pixels = np.unique(values, return_counts=True)
    if len(used) > 2 or used[-1] not in (0, 1, 255, 65535) or used[0] not in (0, used[-1]):
        raise ImageError(
            refusal("grey values", [(f"{value:g}", int(n)) for value, n in zip(used, pixels, strict=True)])
        )
    return Image.fromarray((values > 0).astype(np.uint8) * np.uint8(255))


def _has_labels(values: np.ndarray, used: np.ndarray, lossless: bool, area: int) -> bool:
    """Whether a nearly black and white image holds labels, exact values that stand for something, and not noise.

    `values` is uint8 (height, width), `used` are the values in it, increasing, `area` is the width of an area.
    """
    between = used[(used > 0) & (used < 255)]
    dark, bright = between[between <= NOISE], between[between >= 255 - NOISE]
    middle = between[(between > NOISE) & (between < 255 - NOISE)]
    if lossless:
        if not len(middle) and not (len(dark) and len(bright)):
            return True  # noise would affect black and white alike
        if len(used) <= FEW:
            bright_side = values >= 128
            outline = sum(np.count_nonzero(np.diff(bright_side, axis=axis)) for axis in (0, 1))
            soft = np.count_nonzero((values > NOISE) & (values < 255 - NOISE))
            return bool(soft > EDGE * outline or np.isin(between, _areas(values, 3)).any())
    if np.isin(middle, _areas(values, MIDDLE_AREA)).any():
        return True
    areas = _areas(values, area)
    return bool(np.count_nonzero(areas <= NOISE) > 1 or np.count_nonzero(areas >= 255 - NOISE) > 1)


def _areas(values: np.ndarray, side: int) -> np.ndarray:
    """The values that fill a square of `side` pixels, an odd number, somewhere."""
    inside = slice(side // 2, -(side // 2))  # outside it the filters reflect the image
    flat = minimum_filter(values, side) == maximum_filter(values, side)
    return np.unique(values[inside, inside][flat[inside, inside]])
