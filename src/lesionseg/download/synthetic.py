"""The embedded data set: dermoscopy-like images drawn by a seeded generator. Needs no network."""

import hashlib
import io
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.common.parallel import ordered_process_map
from lesionseg.download.dermoscopy import draw_photograph
from lesionseg.download.subset import choose_subset
from lesionseg.formats.manifest import Pair

# Several processes draw; OpenCV's own threads in each would only compete for the cores. This is a setting of the whole
# process, made on import.
cv2.setNumThreads(0)

JPEG_QUALITY = 90
WORTH_PROCESSES = 24  # with fewer images, starting a second process takes longer than drawing


def fetch(target: Path, *, count: int, limit: int | None, seed: int, workers: int) -> list[Pair]:
    """Draw the images 0 … `count` - 1 of the series `seed` to `target`, or the `limit` of them that `choose` picks.

    An image depends only on its number and the seed: a larger `count` adds to a smaller one, and `workers`, the number
    of processes, changes nothing. Raises InputError if `limit` is above `count`.
    """
    if limit is not None and limit > count:
        raise InputError(
            f"download.limit: found {limit}, but download.synthetic_images is {count}; lower one or raise the other"
        )
    numbers = {f"SYNTH_{number:07d}": number for number in range(count)}
    chosen = choose_subset(numbers, limit, seed)
    for name in ("images", "masks"):
        (target / name).mkdir()
    job = partial(_draw_pair, target, seed)
    workers = workers if len(chosen) >= WORTH_PROCESSES else 1
    drawn = ordered_process_map(job, [(name, numbers[name]) for name in chosen], workers)
    return list(tqdm(drawn, "draw", len(chosen), unit="pair", disable=None))


def _draw_pair(target: Path, seed: int, drawn: tuple[str, int]) -> Pair:
    """Draw, encode and write the pair with this name and number."""
    name, number = drawn
    image, mask = draw_photograph(seed, number)
    height, width = mask.shape
    image_file, mask_file = f"images/{name}.jpg", f"masks/{name}_segmentation.png"
    image_sha256 = _write(target / image_file, image, "JPEG", quality=JPEG_QUALITY)
    mask_sha256 = _write(target / mask_file, mask, "PNG")
    return Pair(name, image_file, mask_file, width, height, image_sha256, mask_sha256, "training", "synthetic")


def _write(path: Path, pixels: np.ndarray, format: str, **options) -> str:
    """Encode pixels and write them; return the SHA-256 of the file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    path.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()
