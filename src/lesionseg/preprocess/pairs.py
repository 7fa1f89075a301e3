"""One image-mask pair: decoded once, fully checked, shrunk to the network's size."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from lesionseg.common.parallel import ordered_process_map, worker_count
from lesionseg.images.decoding import Decoded, ImageError, decode, rgb
from lesionseg.images.header import SIDEWAYS
from lesionseg.images.masks import binary, shrink
from lesionseg.preprocess.duplicates import thumbnail
from lesionseg.preprocess.views import describe

BLACK = 16  # of 255: as bright as 12-bit values stored in 16 bits get; no photograph is so dark
PAIRS_A_PROCESS = 32  # for fewer, starting another process (half a second) is not worth it


@dataclass(frozen=True)
class ReadPair:
    """A pair that passed every check."""

    image: np.ndarray  # uint8 (size, size, 3) RGB
    mask: np.ndarray  # uint8 (size, size) of 0 and 1
    thumbnail: np.ndarray  # see duplicates.thumbnail
    view: np.ndarray  # see views.describe
    width: int  # native size, upright
    height: int
    lesion_fraction: float  # of the native mask
    filling: float  # the lesion's share of its bounding box, 0 without lesion
    turned: bool = False  # EXIF turns image and mask differently, and the sizes do not show whether that is right


@dataclass(frozen=True)
class BadPair:
    """A pair that cannot be used, with everything that is wrong with it."""

    problems: tuple[str, ...]  # "<relative path>: <what was found>"


def read_pairs(
    raw: Path, files: Sequence[tuple[str, str]], size: int, workers: int | None = None
) -> Iterator[ReadPair | BadPair]:
    """Read and check pairs in parallel, in the given order, each file decoded exactly once.

    `files` are (image, mask) paths relative to `raw`; `workers` is the number of processes (None: one per core).
    Memory is bounded by the workers, not by the number of pairs. Processes rather than threads, because Pillow holds
    the interpreter lock while it opens a file or counts grey values: many small images would share one core.
    """
    workers = worker_count(workers)
    workers = min(workers, 1 + len(files) // PAIRS_A_PROCESS)
    yield from ordered_process_map(partial(_read, raw, size), files, workers)


def _read(raw: Path, size: int, files: tuple[str, str]) -> ReadPair | BadPair:
    return read_pair(raw, *files, size)


def read_pair(raw: Path, image: str, mask: str, size: int) -> ReadPair | BadPair:
    """Read and check one pair: both files whole and readable, the same size, the image not black, the mask binary."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # about broken EXIF blocks and the like; what matters is raised
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return _read_pair(raw, image, mask, size)


def _read_pair(raw: Path, image: str, mask: str, size: int) -> ReadPair | BadPair:
    problems: list[str] = []

    def attempt(name: str, read: Callable):
        try:
            return read(raw / name)
        except ImageError as error:
            problems.append(f"{name}: {error}")
            return None

    photograph = attempt(image, lambda path: _photograph(path, size))
    lesion = attempt(mask, lambda path: _lesion(path))
    if photograph and lesion and (photograph[0].width, photograph[0].height) != lesion[1].size:
        problems.append(f"{mask}: {_other_size(image, photograph[0], lesion[0])}")
    if problems:
        return BadPair(tuple(problems))
    (decoded, pixels), (decoded_mask, shape, lesion_pixels) = photograph, lesion
    width, height = decoded.width, decoded.height
    left, top, right, bottom = shape.getbbox() or (0, 0, 1, 1)
    return ReadPair(
        image=pixels,
        mask=shrink(shape, size),
        thumbnail=thumbnail(pixels),
        view=describe(pixels),
        width=width,
        height=height,
        lesion_fraction=lesion_pixels / (width * height),
        filling=lesion_pixels / ((right - left) * (bottom - top)),
        turned=decoded.orientation != decoded_mask.orientation
        and ((decoded.orientation in SIDEWAYS) == (decoded_mask.orientation in SIDEWAYS) or width == height),
    )


def _photograph(path: Path, size: int) -> tuple[Decoded, np.ndarray]:
    """The decoded image, and its pixels at the wanted size. Raises ImageError."""
    decoded = decode(path, size)
    pixels = rgb(decoded, size)
    if (brightest := int(pixels.max())) <= BLACK:
        raise ImageError(
            f"is nearly black, its brightest value is {brightest} of 255, expected a photograph; 12-bit values in a "
            "16-bit file look like that: scale them to the full range"
        )
    return decoded, pixels


def _lesion(path: Path) -> tuple[Decoded, Image.Image, int]:
    """The decoded mask, the mask as an upright image of 0 and 255, and its lesion pixels. Raises ImageError."""
    decoded = decode(path)
    return decoded, *binary(decoded)


def _other_size(image: str, decoded: Decoded, mask: Decoded) -> str:
    text = f"is {mask.width}×{mask.height} pixels, expected {decoded.width}×{decoded.height} as {image}"
    if (mask.width, mask.height) != (decoded.height, decoded.width):
        return text
    if decoded.orientation in SIDEWAYS:
        text += (
            f", which is stored as {mask.width}×{mask.height} and turned by its EXIF orientation "
            f"{decoded.orientation}: the mask was drawn on the stored pixels; turn it too, or remove the orientation "
            "(exiftool -Orientation= FILE)"
        )
    elif mask.orientation in SIDEWAYS:
        text += (
            f": it is stored as {decoded.width}×{decoded.height} and turned by an EXIF orientation of its own, "
            f"{mask.orientation}; remove it (exiftool -Orientation= FILE)"
        )
    return text
