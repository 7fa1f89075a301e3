"""The per-image table of a run, plots/per_image.csv, read for a comparison."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from lesionseg.common.errors import InputError
from lesionseg.scoring.counts import Counts

IDENTITY = ("width", "height", "lesion_fraction")  # of the photograph and its true mask, the same in every run
COUNTS = Counts._fields
SCORES = ("dice", "iou", "jaccard_native")


@dataclass(frozen=True)
class ImageTable:
    """The evaluated images of one run, one row each: `rows` in the order of the file, cells as text.

    Keys are (split, id). Columns that an older table lacks (`group`, the counts) are simply missing.
    """

    name: str
    rows: dict[tuple[str, str], dict[str, str]]
    columns: tuple[str, ...]

    def splits(self) -> list[str]:
        """The splits in the order of the file."""
        return list(dict.fromkeys(split for split, _ in self.rows))

    def ids(self, split: str) -> list[str]:
        return [name for of, name in self.rows if of == split]

    def has(self, columns: Sequence[str]) -> bool:
        return set(columns) <= set(self.columns)

    def values(self, column: str, keys: Sequence[tuple[str, str]]) -> np.ndarray:
        """A column of numbers, float (len(keys),)."""
        return np.array([float(self.rows[key][column]) for key in keys])

    def counts(self, keys: Sequence[tuple[str, str]]) -> np.ndarray:
        """Pixel counts, float (len(keys), 4) in the order tp, fp, fn, tn."""
        return np.column_stack([self.values(name, keys) for name in COUNTS])

    def groups(self, keys: Sequence[tuple[str, str]]) -> list[str]:
        """The duplicate group of each image; without groups in the table, each image is one of its own."""
        return [self.rows[key].get("group") or key[1] for key in keys]


def read(text: str, name: str) -> ImageTable:
    """Parse the text of a per_image.csv; `name` stands for it in messages.

    Raises InputError for missing columns, a cell that is not a number, or an image that appears twice.
    """
    reader = csv.DictReader(io.StringIO(text))
    try:
        columns, listed = tuple(reader.fieldnames or ()), list(reader)
    except csv.Error as error:  # a field longer than the module allows
        raise InputError(f"{name}: not a CSV table ({error}); expected plots/per_image.csv") from None
    if missing := {"split", "id", *SCORES, *IDENTITY} - set(columns):
        raise InputError(
            f"{name}: found the columns {', '.join(columns) or 'of an empty file'}; {', '.join(sorted(missing))} "
            "missing; expected plots/per_image.csv as the evaluate stage writes it"
        )
    numbers = [*SCORES, *IDENTITY, *(COUNTS if set(COUNTS) <= set(columns) else ())]
    rows, problems = {}, []
    for line, row in enumerate(listed, start=2):
        key = (row["split"] or "", row["id"] or "")
        if key in rows:
            problems.append(f"{name}: line {line}: the image {key[1]} of {key[0]} appears a second time")
        for column in numbers:
            if not _is_number(row[column]):
                problems.append(f"{name}: line {line}: {column}: found {row[column]!r}, expected a number")
        rows[key] = row
    if problems:
        raise InputError(problems)
    if not rows:
        raise InputError(f"{name}: no image in it; run `dvc repro evaluate`")
    return ImageTable(name, rows, columns)


def _is_number(cell: str | None) -> bool:
    try:
        return isfinite(float(cell or "nan"))
    except ValueError:
        return False
