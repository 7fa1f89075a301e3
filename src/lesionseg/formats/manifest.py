"""manifest.csv: the pairs of a raw data set, written by download, read by preprocess and evaluate."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from lesionseg.common.errors import InputError
from lesionseg.common.files import read_csv, write_csv
from lesionseg.common.text import id_problem

NAME = "manifest.csv"
# What is split and trained on; the other two official sets; the user's own labelled set to evaluate on; and the
# validation and test sets that the user's data came with.
SUBSETS = ("training", "validation", "test", "external", "given_val", "given_test")


@dataclass(frozen=True)
class Pair:
    """One image with its mask.

    `image` and `mask` are paths relative to the raw directory, with forward slashes. `width` and `height` are
    the image's, after EXIF orientation, in pixels; None if the header cannot be read. The two SHA-256 are of the
    files' bytes, in hexadecimal.
    """

    id: str
    image: str
    mask: str
    width: int | None
    height: int | None
    image_sha256: str
    mask_sha256: str
    subset: str
    source: str


COLUMNS = [field.name for field in fields(Pair)]


def write(raw: Path, pairs: Iterable[Pair]) -> None:
    """Write `raw`/manifest.csv with one row per pair, sorted by id."""
    write_csv(raw / NAME, COLUMNS, (asdict(pair) for pair in sorted(pairs, key=lambda pair: pair.id)))


def read(raw: Path) -> list[Pair]:
    """Return the pairs listed in `raw`/manifest.csv, sorted by id.

    Raises InputError if the file is missing or not such a table, or lists no pair or an id twice.
    """
    path = raw / NAME
    cure = "run the download stage again"
    try:
        rows = read_csv(path)
    except FileNotFoundError:
        raise InputError(f"{path}: not found; {cure}") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file; {cure}") from None
    if not rows:
        raise InputError(f"{path}: lists no pair; {cure}")
    header = [name for name in rows[0] if name is not None]  # None: fields beyond the header, reported below
    if header != COLUMNS:
        raise InputError(f"{path}: found the columns {','.join(header)}, expected {','.join(COLUMNS)}; {cure}")
    pairs, problems, seen = [], [], set()
    for line, row in enumerate(rows, start=2):
        try:
            pair = _pair(row)
        except ValueError as error:
            problems.append(f"{path}: line {line}: {error}; {cure}")
            continue
        if pair.id in seen:
            problems.append(f"{path}: line {line}: the id {pair.id} appears a second time; {cure}")
        seen.add(pair.id)
        pairs.append(pair)
    if problems:
        raise InputError(problems)
    return sorted(pairs, key=lambda pair: pair.id)


def _pair(row: dict) -> Pair:
    """The typed row. Raises ValueError with what is wrong in it."""
    fields = [*row.values(), *row.get(None, ())]  # csv's way: missing fields are None, surplus ones under None
    found = sum(isinstance(field, str) for field in fields)
    if found != len(COLUMNS):
        raise ValueError(f"found {found} fields, expected {len(COLUMNS)}")
    if problem := id_problem(row["id"]):
        raise ValueError(f"the id {row['id']!r} {problem}")
    for name in ("image", "mask"):
        if not row[name]:
            raise ValueError(f"{name} is empty")
    if row["subset"] not in SUBSETS:
        raise ValueError(f"found subset {row['subset']!r}, expected {', '.join(SUBSETS)}")
    return Pair(**{**row, "width": _size("width", row["width"]), "height": _size("height", row["height"])})


def _size(name: str, text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise ValueError(f"found {name} {text!r}, expected a positive whole number or nothing")
    return int(text)
