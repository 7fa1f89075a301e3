"""CSV files beside the user's images: which images belong together, and what else is known about them.

`groups.csv` has a column with the images' ids; every other column is a group (`lesion_id`, `patient`). `metadata.csv`
and any `…_metadata.csv`, such as HAM10000's, has such a column too; its other columns serve the breakdowns of the
evaluation, and those named after a lesion or patient are groups as well. The id column is recognised by its values.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lesionseg.common.errors import InputError
from lesionseg.common.text import printable
from lesionseg.download.unfetched import unfetched

# The name of a column of groups, alone or with a word such as id: `patient`, `Patient ID`, `lesion_id`.
GROUPED = re.compile(r"(group|lesion|patient|subject|case)s?[ _.-]*(id|nr|no|number|code|name|key)?", re.IGNORECASE)
LONGEST_TABLE = 64 << 20  # bytes
LONGEST_CELL = 1000  # characters
SHOWN = 60  # characters of a cell in a message
UNKNOWN = ("", "-", "?", "na", "n/a", "nan", "none", "null", "unknown")  # in any case: no group
DELIMITERS = ",;\t"
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet formula begins with

_OF_IMAGES = re.compile(r"image|img|photo|file|isic|^id$|^name$", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]|[+-]?[\d.,]+(?:[eE][+-]?\d+)?%?")


@dataclass
class SideTables:
    """The content of the tables, by image id."""

    groups: list[tuple[str, str]] = field(default_factory=list)  # (id, group)
    columns: list[str] = field(default_factory=list)  # of the metadata, in their order
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)  # id -> column -> value
    notes: list[str] = field(default_factory=list)  # one line per file, to be shown


def read_side_tables(folder: Path, tables_names: Mapping[Path, Mapping[str, str]]) -> SideTables:
    """Read the tables in `folder`, given with a mapping each, from what an image may be called there to its id.

    Raises InputError with one line for each file that is not such a table.
    """
    tables = SideTables()
    problems: list[str] = []
    for path, names in sorted(tables_names.items()):
        try:
            _read(path, str(path.relative_to(folder)), names, tables)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return tables


def is_side_table(path: Path) -> bool:
    """Whether a file is such a table, by its name."""
    name = path.name.lower()
    return name in ("groups.csv", "group.csv") or (name.endswith("metadata.csv") and not name.startswith("."))


def _read(path: Path, title: str, names: Mapping[str, str], tables: SideTables) -> None:
    columns, rows = _rows(path)
    known = {column: len({_id(row[column], names) for row in rows} - {None}) for column in columns}
    # If ids are plain numbers, lesions and patients may have the same ones.
    likely = {column: (not GROUPED.fullmatch(column), bool(_OF_IMAGES.search(column))) for column in columns}
    id_column = max(columns, key=lambda column: (known[column], likely[column]))  # the first of equals
    if rows and not known[id_column]:
        shown = ", ".join(repr(rows[0][column][:SHOWN]) for column in columns)
        raise InputError(
            f"{path}: no column holds ids of the images; found {', '.join(columns)} with, for instance, {shown}, "
            f"expected ids such as {next(iter(names))!r}; rename the file to have it ignored"
        )
    if heads := [column for column in columns if _id(column, names) is not None]:
        raise InputError(
            f"{path}: its first line has the id {heads[0]}, expected the columns' names; add a line such as id,group "
            "above it"
        )
    others = [column for column in columns if column != id_column]
    is_groups = not path.name.lower().endswith("metadata.csv")
    grouping = [column for column in others if is_groups or GROUPED.fullmatch(column)]
    grouped, absent, twice = set(), 0, []
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        image = _id(row[id_column], names)
        if image is None:
            absent += 1
            continue
        for column in grouping:
            if row[column].lower() not in UNKNOWN:
                tables.groups.append((image, f"{column}:{row[column]}"))
                grouped.add(image)
        values = {column: row[column] for column in others}
        if found.setdefault(image, values) != values and not is_groups:
            twice.append(f"{path}: {image} has two rows that differ; remove one")
    if twice:
        raise InputError(twice)
    if not is_groups:
        tables.columns += [column for column in others if column not in tables.columns]
        for image, values in found.items():
            tables.metadata.setdefault(image, {}).update(values)
    images = len(set(names.values()))
    said = [f"{len(grouped)} of {images} images in groups by {', '.join(grouping)}"] if grouping else []
    said += [f"columns of {len(found)} of {images} images"] if not is_groups else []
    said += [f"{absent} rows for images that are not in the data"] if absent else []
    tables.notes.append(f"{title}: {'; '.join(said)}")


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """(column names, rows of stripped text)."""
    if reason := unfetched(path):
        raise InputError(f"{path}: {reason.replace('picture', 'table')}")
    if (size := path.stat().st_size) > LONGEST_TABLE:
        raise InputError(f"{path}: has {size} bytes, expected a table of at most {LONGEST_TABLE}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file; save it as CSV UTF-8") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected a table; mend or remove it") from None
    if "\0" in text:
        raise InputError(f"{path}: binary (it has NUL bytes), expected a table as CSV UTF-8; save it so")
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    try:
        lines = list(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path}: not a table ({error}), expected CSV UTF-8; save it again") from None
    table = [[_text(cell) for cell in row] for row in lines if any(row)]
    if not table or len(table[0]) < 2 or len(set(table[0])) < len(table[0]) or not all(table[0]):
        found = ", ".join(table[0]) if table else "nothing"
        raise InputError(
            f"{path}: found the columns {found}, expected a column of ids and at least one more, all named"
        )
    columns = table[0]
    bad = [number for number, row in enumerate(table[1:], start=2) if len(row) != len(columns)]
    if bad:
        raise InputError(f"{path}: row {bad[0]} does not have {len(columns)} fields, one per column name; correct it")
    return columns, [dict(zip(columns, row, strict=True)) for row in table[1:]]


def _text(cell: str) -> str:
    """A cell, stripped, on one line, cut at LONGEST_CELL characters.

    It ends up in tables that people open in spreadsheets, so what would be taken for a formula gets an apostrophe in
    front; numbers and a sign alone stay as they are.
    """
    cell = printable(cell.strip(), LONGEST_CELL)
    return f"'{cell}" if cell[:1] in FORMULA and not _NUMBER.fullmatch(cell) else cell


def _id(text: str, names: Mapping[str, str]) -> str | None:
    """The id that a cell stands for, as it is or as the name of a file."""
    text = unicodedata.normalize("NFC", text)
    return names.get(text) or names.get(PurePosixPath(text.replace("\\", "/")).stem)
