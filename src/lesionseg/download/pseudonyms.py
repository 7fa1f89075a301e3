"""Names for images that say nothing about the patient: numbers made from the bytes of the photographs.

A photograph keeps its number when others are added or removed, so that runs can be compared image by image, and the
number does not reveal the file's name. names.csv of the raw data says which name belongs to which number.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lesionseg.common.files import read_csv, write_csv

NAME = "names.csv"
COLUMNS = ("id", "name")
DIGITS = 12  # hexadecimal; in one of 500 sets of a million photographs, two share a number


def pseudonyms(digests: Mapping[str, str]) -> dict[str, str]:
    """Name -> pseudonym, from the SHA-256 of each photograph; equal ones get a count: `image_0a…`, `image_0a…_2`."""
    seen: Counter = Counter()
    chosen = {}
    for name in sorted(digests):
        number = f"image_{digests[name][:DIGITS]}"
        seen[number] += 1
        chosen[name] = number if seen[number] == 1 else f"{number}_{seen[number]}"
    return chosen


def add(raw: Path, names: Mapping[str, str]) -> None:
    """Add pseudonym -> name to `raw`/names.csv, which is sorted; another source may have written to it before."""
    every = {**read(raw), **names}
    write_csv(raw / NAME, COLUMNS, ({"id": image, "name": every[image]} for image in sorted(every)))


def read(raw: Path) -> dict[str, str]:
    """Pseudonym -> name from `raw`/names.csv; empty if there is no such file."""
    path = raw / NAME
    return {row["id"]: row["name"] for row in read_csv(path)} if path.exists() else {}


def move(source: Path, target: Path, prefix: str) -> None:
    """Add the names of one raw folder to those of another, under pseudonyms with a prefix."""
    if found := read(source):
        add(target, {f"{prefix}{image}": name for image, name in found.items()})
    (source / NAME).unlink(missing_ok=True)
