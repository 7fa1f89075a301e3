"""The processed data set on disk: `images.npy`, `masks.npy` and `samples.csv` in one folder.

Row i of `samples.csv` describes index i of both arrays; the rows are sorted by id. The arrays are plain .npy
files, so a reader maps them into memory and touches only the images it uses, however many there are.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from lesionseg.common.errors import InputError
from lesionseg.common.files import read_csv, write_csv

SPLITS = ("train", "val", "official_validation", "official_test")


@dataclass(frozen=True)
class Sample:
    """One image-mask pair of the processed data set."""

    id: str
    split: str  # one of SPLITS
    width: int  # native size in pixels, upright (after EXIF orientation)
    height: int
    lesion_fraction: float  # lesion pixels / all pixels of the native mask, 6 decimals
    group: str  # smallest id of its duplicate group; its own id when it has no duplicate


COLUMNS = tuple(field.name for field in fields(Sample))


def read_samples(folder: str | Path) -> list[Sample]:
    """Return the samples of a processed folder, in array order; InputError on a missing or foreign file."""
    path = Path(folder) / "samples.csv"
    try:
        rows = read_csv(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run `dvc repro preprocess`") from None
    samples, problems = [], []
    for line, row in enumerate(rows, start=2):
        try:
            sample = Sample(
                id=row["id"],
                split=row["split"],
                width=int(row["width"]),
                height=int(row["height"]),
                lesion_fraction=float(row["lesion_fraction"]),
                group=row["group"],
            )
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"{path}: line {line}: {error!r}; expected the columns {','.join(COLUMNS)}")
            continue
        if sample.split not in SPLITS:
            problems.append(f"{path}: line {line}: split '{sample.split}', expected one of {', '.join(SPLITS)}")
        samples.append(sample)
    if problems:
        raise InputError(problems)
    return samples


def write_samples(folder: str | Path, samples: Iterable[Sample]) -> None:
    """Write `samples.csv`, in the given order, which must be that of the arrays."""
    rows = (asdict(sample) | {"lesion_fraction": f"{sample.lesion_fraction:.6f}"} for sample in samples)
    write_csv(Path(folder) / "samples.csv", COLUMNS, rows)


def open_arrays(folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Map the arrays of a processed folder into memory, read-only.

    Returns images uint8 (N, H, W, 3) RGB and masks uint8 (N, H, W) of 0 and 1. Raises InputError when one is
    missing, has another shape or type, or when the two and `samples.csv` differ in length.
    """
    folder = Path(folder)
    images, masks = _open(folder / "images.npy"), _open(folder / "masks.npy")
    problems = []
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        problems.append(f"{folder / 'images.npy'}: {images.dtype} {images.shape}, expected uint8 (N, H, W, 3)")
    if masks.dtype != np.uint8 or masks.ndim != 3:
        problems.append(f"{folder / 'masks.npy'}: {masks.dtype} {masks.shape}, expected uint8 (N, H, W)")
    if not problems and images.shape[:3] != masks.shape:
        problems.append(f"{folder}: images.npy {images.shape} and masks.npy {masks.shape} do not match")
    count = len(read_samples(folder))
    if not problems and count != len(images):
        problems.append(f"{folder}: samples.csv has {count} rows, the arrays {len(images)}")
    if problems:
        raise InputError(f"{problem}; run `dvc repro --force preprocess`" for problem in problems)
    return images, masks


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run `dvc repro preprocess`") from None
    except ValueError as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); run `dvc repro --force preprocess`") from None
