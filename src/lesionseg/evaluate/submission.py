"""Predicted masks at native size in the layout of an ISIC 2018 Task 1 submission."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from lesionseg.common.files import atomic

_README = """\
Predicted masks at native size, one folder for each evaluated split: <split>/<id>_segmentation.png, 8-bit grey,
0 background and 255 lesion, the layout of an ISIC 2018 Task 1 submission (zip the files of one split).
They are written if evaluate.submission is true in params.yaml; otherwise the folder holds only this file.
"""


def start(folder: str | Path) -> None:
    """Start an empty submission folder with a README: DVC expects the folder even without masks."""
    shutil.rmtree(folder, ignore_errors=True)
    with atomic(Path(folder) / "README.txt") as temporary:
        temporary.write_text(_README, encoding="utf-8")


def write_mask(folder: str | Path, split: str, name: str, mask: np.ndarray) -> None:
    """Write one mask, uint8 (height, width) of 0 and 1, as `folder`/`split`/`name`_segmentation.png."""
    with atomic(Path(folder) / split / f"{name}_segmentation.png") as temporary:
        Image.fromarray(mask * np.uint8(255)).save(temporary, format="PNG", compress_level=3)
