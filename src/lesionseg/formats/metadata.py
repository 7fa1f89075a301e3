"""metadata.csv of the raw data: what is known about each image besides its pixels: diagnosis, sex, age, site, ….

Written by download beside the manifest if the source has such columns, read by evaluate for its breakdowns. The first
column is the manifest's `id`; the others are named as by the user. Every value is a text, empty where unknown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lesionseg.common.errors import InputError
from lesionseg.common.files import read_csv, write_csv

NAME = "metadata.csv"


@dataclass(frozen=True)
class Metadata:
    """Columns by name, and the values of each image that has any."""

    columns: tuple[str, ...] = ()  # without `id`, in the order of the file
    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # id -> column -> value, "" where unknown

    def value(self, image: str, column: str) -> str:
        """The value of an image; "" if there is none."""
        return self.rows.get(image, {}).get(column, "")


def add(raw: Path, columns: Sequence[str], rows: Mapping[str, Mapping[str, str]]) -> None:
    """Add rows to `raw`/metadata.csv, which is sorted by id; another source may have written to it before."""
    before = read(raw)
    every = list(dict.fromkeys([*before.columns, *columns]))
    merged = {**before.rows, **rows}
    table = ({"id": image} | {name: merged[image].get(name, "") for name in every} for image in sorted(merged))
    write_csv(raw / NAME, ["id", *every], table)


def read(raw: Path) -> Metadata:
    """Return the content of `raw`/metadata.csv; no columns if there is no such file. InputError if it is damaged."""
    path = raw / NAME
    try:
        rows = read_csv(path)
    except FileNotFoundError:
        return Metadata()
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file; run the download stage again") from None
    if not rows:
        return Metadata()
    columns = tuple(name for name in rows[0] if name is not None and name != "id")
    if any(None in row or None in row.values() or "id" not in row for row in rows):
        raise InputError(f"{path}: expected a column id and as many fields in each row as names; run download again")
    return Metadata(columns, {row["id"]: {name: row[name] for name in columns} for row in rows})


def move(source: Path, target: Path, prefix: str) -> None:
    """Add the metadata of one raw folder to those of another, under ids with a prefix."""
    found = read(source)
    if found.columns:
        add(target, found.columns, {f"{prefix}{image}": row for image, row in found.rows.items()})
    (source / NAME).unlink(missing_ok=True)
