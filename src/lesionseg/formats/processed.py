"""Processed images and masks on disk: `images.npy`, `masks.npy` and `samples.csv` in one folder.

Row i of `samples.csv` describes index i of both arrays; the rows are sorted by id. The arrays are plain .npy files, so
a reader maps them into memory and touches only the images it uses.

There are two such folders: what is trained on, and what is only evaluated. Training depends only on the first, so a
test set can be added, changed or removed without training again.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from lesionseg.common.errors import InputError
from lesionseg.common.files import read_csv, write_csv

TRAINED = ("train", "val")  # in the first folder: fitted, and monitored during training
HELD_OUT = ("test", "official_validation", "official_test", "external")  # in the second: only evaluated
SPLITS = (*TRAINED, *HELD_OUT)
EVALUATED = ("val", *HELD_OUT)  # in the order of every table and picture


@dataclass(frozen=True)
class Sample:
    """One image-mask pair of the processed data set."""

    id: str
    split: str  # one of SPLITS
    width: int  # native size in pixels, upright (after EXIF orientation)
    height: int
    lesion_fraction: float  # lesion pixels / all pixels of the native mask, 6 decimals
    group: str  # smallest id of its duplicate group; its own id if it has no duplicate


COLUMNS = tuple(field.name for field in fields(Sample))


def read_samples(folder: str | Path) -> list[Sample]:
    """Return the samples of a processed folder, in array order. Raises InputError for a missing or foreign file."""
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
    """Write `samples.csv` in the given order, which must be that of the arrays."""
    rows = (asdict(sample) | {"lesion_fraction": f"{sample.lesion_fraction:.6f}"} for sample in samples)
    write_csv(Path(folder) / "samples.csv", COLUMNS, rows)


def open_arrays(folder: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Map the arrays of a processed folder into memory, read-only.

    Returns images uint8 (N, H, W, 3) RGB and masks uint8 (N, H, W) of 0 and 1. Raises InputError if one is
    missing or has another shape or type, or if the two and `samples.csv` differ in length.
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


@dataclass(frozen=True)
class Processed:
    """Samples with their images uint8 (N, H, W, 3) and masks uint8 (N, H, W) of 0 and 1: row i belongs to sample i."""

    samples: list[Sample]
    images: "Rows"
    masks: "Rows"

    def rows(self, *splits: str) -> list[int]:
        """The rows of the samples of these splits, in array order."""
        return [row for row, sample in enumerate(self.samples) if sample.split in splits]


def open_folder(folder: str | Path) -> Processed:
    """Open one processed folder. Raises InputError as `read_samples` and `open_arrays` do."""
    return Processed(read_samples(folder), *open_arrays(folder))


def open_folders(*folders: str | Path) -> Processed:
    """Open several processed folders as one: the rows of the first, then those of the next.

    Raises InputError if one is damaged or their images differ in size.
    """
    parts = [open_folder(folder) for folder in folders]
    shapes = {part.images.shape[1:3] for part in parts}
    if len(shapes) > 1:
        found = ", ".join(f"{folder} {part.images.shape[1:3]}" for folder, part in zip(folders, parts, strict=True))
        raise InputError(f"images of several sizes: {found}; run `dvc repro --force preprocess`")
    return Processed(
        [sample for part in parts for sample in part.samples],
        Joined([part.images for part in parts]),
        Joined([part.masks for part in parts]),
    )


class Joined:
    """Memory-mapped arrays that differ only in length, read as one along the first axis; rows are copied on request."""

    def __init__(self, arrays: Sequence["Rows"]):
        self._arrays = arrays
        self._starts = np.cumsum([0, *map(len, arrays)])
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *arrays[0].shape[1:])
        self.dtype: np.dtype = arrays[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: int | np.integer | Sequence[int] | np.ndarray) -> np.ndarray:
        """The row with a number, or a new array of the rows in a list."""
        if isinstance(rows, int | np.integer):
            if not 0 <= rows < len(self):
                raise IndexError(f"row {rows} of {len(self)}")
            part = int(np.searchsorted(self._starts, rows, side="right")) - 1
            return self._arrays[part][int(rows - self._starts[part])]
        chosen = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, row in enumerate(rows):
            chosen[place] = self[row]
        return chosen


Rows = np.ndarray | Joined  # an array that is read row by row


def _open(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; run `dvc repro preprocess`") from None
    except ValueError as error:
        raise InputError(f"{path}: not a whole .npy file ({error}); run `dvc repro --force preprocess`") from None
