"""Names for images that say nothing of the patient: numbers made from the bytes of the photographs.

The number of a photograph stays the same when others come or go, so that runs can be compared image by image, and
nobody can tell the file's name from it. Which name a number stands for is in names.csv of the raw data.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from lesionseg.common.files import read_csv, write_csv

NAME = "names.csv"
COLUMNS = ("id", "name")
DIGITS = 12  # hexadecimal; two of a million photographs share them once in 500 such sets


def pseudonyms(digests: Mapping[str, str]) -> dict[str, str]:
    """Name -> pseudonym, by the SHA-256 of each photograph; equal ones are counted: `image_0a…`, `image_0a…_2`."""
    seen: Counter = Counter()
    chosen = {}
    for name in sorted(digests):
        number = f"image_{digests[name][:DIGITS]}"
        seen[number] += 1
        chosen[name] = number if seen[number] == 1 else f"{number}_{seen[number]}"
    return chosen


def add(raw: Path, names: Mapping[str, str]) -> None:
    """Write `raw`/names.csv from pseudonym -> name, sorted, together with what it has already (of another source)."""
    every = {**read(raw), **names}
    write_csv(raw / NAME, COLUMNS, ({"id": image, "name": every[image]} for image in sorted(every)))


def read(raw: Path) -> dict[str, str]:
    """Pseudonym -> name of `raw`/names.csv; none where there is no such file."""
    path = raw / NAME
    return {row["id"]: row["name"] for row in read_csv(path)} if path.exists() else {}


def move(source: Path, target: Path, prefix: str) -> None:
    """Add the names of one raw folder to those of another, under pseudonyms with a prefix."""
    if found := read(source):
        add(target, {f"{prefix}{image}": name for image, name in found.items()})
    (source / NAME).unlink(missing_ok=True)
