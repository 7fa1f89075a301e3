"""groups.csv of the raw data: images that must stay on one side of a split, such as two photographs of a lesion.

Written by download beside the manifest if the source has groups; preprocess merges them with the groups of duplicates.
One row for each image and group, `id,group`; an image may be in several (its lesion's, its patient's) or in none.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from lesionseg.common.errors import InputError
from lesionseg.common.files import read_csv, write_csv

NAME = "groups.csv"
COLUMNS = ("id", "group")


def add(raw: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Add rows (id, group) to `raw`/groups.csv, which is sorted; another source may have written to it before."""
    every = sorted({*rows, *read(raw)})
    write_csv(raw / NAME, COLUMNS, ({"id": image, "group": group} for image, group in every))


def read(raw: Path) -> list[tuple[str, str]]:
    """Return the (id, group) of `raw`/groups.csv; empty if there is no such file. InputError if it is damaged."""
    path = raw / NAME
    try:
        rows = read_csv(path)
    except FileNotFoundError:
        return []
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file; run the download stage again") from None
    if any(tuple(row) != COLUMNS or not all(row.values()) for row in rows):
        raise InputError(f"{path}: expected the columns {','.join(COLUMNS)}; run the download stage again")
    return [(row["id"], row["group"]) for row in rows]


def move(source: Path, target: Path, prefix: str) -> None:
    """Add the groups of one raw folder to those of another, under ids with a prefix."""
    if rows := read(source):
        add(target, [(f"{prefix}{image}", group) for image, group in rows])
    (source / NAME).unlink(missing_ok=True)


def links(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Pairs of ids that together link all images of each group."""
    members: dict[str, list[str]] = defaultdict(list)
    for image, group in rows:
        members[group].append(image)
    return [pair for images in members.values() for pair in pairwise(sorted(images))]
