"""The embedded data set: dermoscopy-like images drawn by a seeded generator. Needs no network."""

import hashlib
import io
import signal
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from lesionseg.common.errors import InputError
from lesionseg.download.dermoscopy import draw
from lesionseg.download.subset import choose
from lesionseg.formats.manifest import Pair

JPEG_QUALITY = 90
WORTH_PROCESSES = 24  # fewer images are drawn before a second process has started


def fetch(target: Path, *, count: int, limit: int | None, seed: int, workers: int) -> list[Pair]:
    """Draw the images 0 … `count` - 1 of the series `seed` to `target`, or the `limit` of them that `choose` picks.

    An image depends on its number and the seed alone: a larger `count` adds to a smaller one, and `workers`, the number
    of processes, changes nothing. Raises InputError when `limit` is above `count`.
    """
    if limit is not None and limit > count:
        raise InputError(
            f"download.limit: found {limit}, but download.synthetic_images is {count}; lower the one or raise the other"
        )
    numbers = {f"SYNTH_{number:07d}": number for number in range(count)}
    chosen = choose(numbers, limit, seed)
    for name in ("images", "masks"):
        (target / name).mkdir()
    job = partial(_draw_pair, target, seed)
    if workers > 1 and len(chosen) >= WORTH_PROCESSES:
        # spawn: a forked child may inherit a lock that a thread of the parent (torch's, a test's) holds
        with ProcessPoolExecutor(min(workers, len(chosen)), get_context("spawn"), _start_worker) as processes:
            drawn = processes.map(job, chosen, map(numbers.get, chosen), chunksize=4)
            return list(tqdm(drawn, "draw", len(chosen), unit="pair", disable=None))
    drawn = map(job, chosen, map(numbers.get, chosen))
    return list(tqdm(drawn, "draw", len(chosen), unit="pair", disable=None))


def _start_worker() -> None:
    """Set up a process: it draws on one core, and leaves Ctrl-C to its parent."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw_pair(target: Path, seed: int, name: str, number: int) -> Pair:
    """Draw, encode and write one pair."""
    image, mask = draw(seed, number)
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
