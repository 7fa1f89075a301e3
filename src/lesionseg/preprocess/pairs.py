"""One image-mask pair: decoded once, checked in full, shrunk to the network's size."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from lesionseg.common.parallel import ordered_process_map, worker_count
from lesionseg.images.decoding import ImageError, decode, read_rgb
from lesionseg.images.masks import binary, shrink
from lesionseg.preprocess.duplicates import thumbnail

PAIRS_A_PROCESS = 32  # the start of a process, about half a second, is worth it from here on


@dataclass(frozen=True)
class ReadPair:
    """A pair that passed every check."""

    image: np.ndarray  # uint8 (size, size, 3) RGB
    mask: np.ndarray  # uint8 (size, size) of 0 and 1
    thumbnail: np.ndarray  # see duplicates.thumbnail
    width: int  # native size, upright
    height: int
    lesion_fraction: float  # of the native mask


@dataclass(frozen=True)
class BadPair:
    """A pair that cannot be used, with everything that is wrong with it."""

    problems: tuple[str, ...]  # "<relative path>: <what was found>"


def read_pairs(
    raw: Path, files: Sequence[tuple[str, str]], size: int, workers: int | None = None
) -> Iterator[ReadPair | BadPair]:
    """Read and check pairs in parallel, in the given order, each file decoded exactly once.

    `files` are (image, mask) paths relative to `raw`; `workers` processes (None: one a core). Memory is bounded by
    the workers, not by the number of pairs. Processes, because Pillow holds the interpreter lock while it opens a
    file or counts grey values: with threads, many small images would share one core.
    """
    workers = worker_count(workers)
    workers = min(workers, 1 + len(files) // PAIRS_A_PROCESS)
    yield from ordered_process_map(partial(_read, raw, size), files, workers)


def _read(raw: Path, size: int, files: tuple[str, str]) -> ReadPair | BadPair:
    return read_pair(raw, *files, size)


def read_pair(raw: Path, image: str, mask: str, size: int) -> ReadPair | BadPair:
    """Read and check one pair: both files whole and readable, the same size, the mask binary (see masks)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # broken EXIF blocks and the like; what matters is raised
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

    rgb = attempt(image, lambda path: read_rgb(path, size))
    lesion = attempt(mask, lambda path: binary(decode(path)))
    if rgb and lesion and rgb[1] != lesion[0].size:
        found, expected = lesion[0].size, rgb[1]
        problems.append(f"{mask}: is {found[0]}×{found[1]} pixels, expected {expected[0]}×{expected[1]} as {image}")
    if problems:
        return BadPair(tuple(problems))
    (pixels, (width, height)), (shape, lesion_pixels) = rgb, lesion
    return ReadPair(
        image=pixels,
        mask=shrink(shape, size),
        thumbnail=thumbnail(pixels),
        width=width,
        height=height,
        lesion_fraction=lesion_pixels / (width * height),
    )
