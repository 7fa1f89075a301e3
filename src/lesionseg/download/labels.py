"""Masks read by named values or colours: one class of a label map, colour masks, transparency, void pixels.

A label is a whole number (the value stored in the file, of any bit depth; in a palette image the index), a colour as
it appears (`red` or `#fa3253`), or `opaque` or `transparent`. Several are joined by `+`, `,` or spaces.

Every pixel with a lesion label is lesion. Without a named background, everything else is background. With one, a pixel
that has none of the labels exactly gets the nearest, as JPEGs and soft edges require; if more than 5 % of the pixels
are far from all labels, the mask is refused. A void pixel, which the annotator left out, is treated like the nearest
pixel that is not void.
"""

import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor
from scipy.ndimage import distance_transform_edt

from lesionseg.common.errors import InputError
from lesionseg.images.decoding import LOSSY_FORMATS, Decoded, ImageError
from lesionseg.images.masks import NAMED, NEARLY, NOISE, named_colours, refusal, visible_colour

TRANSPARENCY = ("opaque", "transparent")

Label = int | tuple[int, int, int] | str


@dataclass(frozen=True)
class Labels:
    """What the values of a mask stand for."""

    lesion: tuple[Label, ...]
    background: tuple[Label, ...] = ()  # none: everything that is neither lesion nor void
    void: tuple[Label, ...] = ()

    def all(self) -> list[tuple[Label, str]]:
        return [(label, kind) for kind in ("lesion", "background", "void") for label in getattr(self, kind)]


@dataclass(frozen=True)
class LabelledMask:
    """A mask read by its labels, upright."""

    lesion: np.ndarray  # bool (height, width)
    void: int  # pixels
    other: int  # pixels without a named label, counted as background


def parse(lesion: str | int | None, background: str | int | None, void: str | int | None) -> Labels | None:
    """The labels that three parameters name; None if none is set. Raises InputError with every problem."""
    given = {"mask_lesion": lesion, "mask_background": background, "mask_void": void}
    if all(text is None for text in given.values()):
        return None
    problems: list[str] = []
    if lesion is None:
        problems.append("download.mask_lesion: not set, but mask_background or mask_void is; name what is lesion")
    labels = {name: _parse(f"download.{name}", text, problems) for name, text in given.items()}
    every = [label for found in labels.values() for label in found]
    for label in sorted({str(label) for label in every if every.count(label) > 1}):
        problems.append(f"download.mask_lesion, mask_background, mask_void: {label} is named twice, expected once")
    if problems:
        raise InputError(problems)
    return Labels(labels["mask_lesion"], labels["mask_background"], labels["mask_void"])


def read(decoded: Decoded, labels: Labels) -> LabelledMask:
    """Read a decoded mask by its labels. Raises ImageError if it does not fit them."""
    image = decoded.image
    kinds = [kind for _, kind in labels.all()]
    distance = np.stack([_distance(image, label) for label, _ in labels.all()])  # (labels, height, width)
    nearest, near = distance.argmin(0), distance.min(0)
    # Transparency and numbers are exact; colours that JPEG or smoothing has spread are not.
    unnamed = near > 0
    if labels.background:
        if np.count_nonzero(near > NOISE) > (1 - NEARLY) * near.size:
            raise ImageError(f"{_found(image)}: more than 5 % of the pixels have none of the labels named")
        unnamed[:] = False
    elif np.count_nonzero(unnamed & (near <= NOISE)) and _is_spread(image):
        raise ImageError(
            f"{_found(image)}: spread by compression or smoothing, so the background must be named too; set "
            "download.mask_background"
        )
    kind = np.array(kinds)[nearest]
    lesion, void = (kind == "lesion") & ~unnamed, (kind == "void") & ~unnamed
    if void.any() and not void.all():
        rows, columns = distance_transform_edt(void, return_distances=False, return_indices=True)
        lesion = lesion[rows, columns]
    upright = decoded.upright(Image.fromarray(lesion.astype(np.uint8)))
    return LabelledMask(np.asarray(upright).astype(bool), int(void.sum()), int(unnamed.sum()))


def _parse(name: str, text: str | int | None, problems: list[str]) -> tuple[Label, ...]:
    labels: list[Label] = []
    for word in re.split(r"[+,\s]+", "" if text is None else str(text).strip().lower()):
        if not word:
            continue
        if word.isdecimal():
            labels.append(int(word))
        elif word in TRANSPARENCY:
            labels.append(word)
        else:
            try:
                labels.append(ImageColor.getrgb(word)[:3])
            except ValueError:
                problems.append(
                    f"{name}: found {word!r}, expected a value such as 1, a colour such as red or #fa3253, opaque or "
                    "transparent; several joined by +"
                )
    if text is not None and not labels and not problems:
        problems.append(f"{name}: found {text!r}, expected at least one value or colour, or null")
    return tuple(labels)


def _distance(image: Image.Image, label: Label) -> np.ndarray:
    """The distance of each pixel from a label, 0 where it has that label: int (height, width)."""
    far = np.iinfo(np.int32).max
    if isinstance(label, str):
        _, alpha = visible_colour(image)
        opaque = np.full(image.size[::-1], True) if alpha is None else alpha >= 128
        return np.where(opaque == (label == "opaque"), 0, far)
    if isinstance(label, int) and image.mode in (
        "L",
        "P",
        "1",
        "F",
        "I",
        "I;16",
        "I;16B",
        "I;16L",
        "I;16N",
        "LA",
        "PA",
    ):
        values = np.asarray(image.getchannel(0) if image.mode in ("LA", "PA") else image)
        if image.mode == "1":
            return np.where(values == (label > 0), 0, far)
        if image.mode in ("P", "PA"):
            return np.where(values == label, 0, far)  # indices have no order
        return (
            np.abs(values.astype(np.float64 if image.mode == "F" else np.int64) - label).clip(0, far).astype(np.int32)
        )
    colour = (label,) * 3 if isinstance(label, int) else label
    pixels = np.asarray(visible_colour(image)[0]).astype(np.int32)
    return np.abs(pixels - colour).max(2)


def _is_spread(image: Image.Image) -> bool:
    if image.format in LOSSY_FORMATS:
        return True
    if image.mode.startswith("I") or image.mode == "F":
        return len(np.unique(np.asarray(image))) > NAMED
    return visible_colour(image)[0].getcolors(NAMED) is None


def _found(image: Image.Image) -> str:
    """The values or colours of an image, for a message."""
    if image.mode in ("L", "P", "I", "F") or image.mode.startswith("I;"):
        used, pixels = np.unique(np.asarray(image), return_counts=True)
        kind, found = "values", [(f"{value:g}", int(count)) for value, count in zip(used, pixels, strict=True)]
    else:
        kind, found = "colours", named_colours(visible_colour(image)[0])
    return refusal(kind, found).partition(", expected")[0]
