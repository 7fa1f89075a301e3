"""CSV files beside the user's images: which images belong together, and what else is known of them.

`groups.csv` has a column with the images' ids; every other column is a group (`lesion_id`, `patient`). `metadata.csv`
and any `…_metadata.csv`, such as HAM10000's, has such a column too; its other columns are kept for the breakdowns of
evaluation, and those named after a lesion or patient are groups as well. The column of ids is the one whose values
are ids of the data.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lesionseg.common.errors import InputError

GROUP_COLUMNS = (
    "group", "group_id", "lesion", "lesion_id", "lesionid", "patient", "patient_id", "patientid", "subject",
    "subject_id", "case", "case_id",
)  # fmt: skip
UNKNOWN = ("", "-", "?", "na", "n/a", "nan", "none", "null", "unknown")  # in any case: stands alone
DELIMITERS = ",;\t"
FORMULA = ("=", "+", "-", "@")  # how a cell begins that a spreadsheet computes

_NUMBER = re.compile(r"[+-]|[+-]?[\d.,]+(?:[eE][+-]?\d+)?%?")


@dataclass
class SideTables:
    """What the tables say, by ids of the data."""

    groups: list[tuple[str, str]] = field(default_factory=list)  # (id, group)
    columns: list[str] = field(default_factory=list)  # of the metadata, in order
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)  # id -> column -> value
    files: list[str] = field(default_factory=list)  # names of the files read
    notes: list[str] = field(default_factory=list)  # one line a file, to be shown


def read_side_tables(folder: Path, names: Mapping[str, str]) -> SideTables:
    """Read the tables of `folder`; `names` maps what an image may be called there to its id.

    Raises InputError with one line for each file that is no such table.
    """
    tables = SideTables()
    problems: list[str] = []
    for path in sorted(folder.iterdir()):
        name = path.name.lower()
        if not path.is_file() or path.suffix.lower() != ".csv" or name.startswith("."):
            continue
        if name == "groups.csv" or name.removesuffix(".csv").endswith("metadata"):
            try:
                _read(path, names, tables)
            except InputError as error:
                problems += error.problems
    if problems:
        raise InputError(problems)
    return tables


def _read(path: Path, names: Mapping[str, str], tables: SideTables) -> None:
    columns, rows = _rows(path)
    known = {column: sum(_id(row[column], names) is not None for row in rows) for column in columns}
    id_column = max(columns, key=lambda column: known[column])  # the first of equals
    if rows and not known[id_column]:
        raise InputError(
            f"{path}: no column holds ids of the images; found {', '.join(columns)} with, for instance, "
            f"{', '.join(repr(rows[0][column]) for column in columns)}, expected ids such as {next(iter(names))!r}"
        )
    others = [column for column in columns if column != id_column]
    is_groups = path.name.lower() == "groups.csv"
    grouping = [column for column in others if is_groups or column.lower().strip() in GROUP_COLUMNS]
    tables.files.append(path.name)
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
    said += [f"{absent} rows of images that are not in the data"] if absent else []
    tables.notes.append(f"{path.name}: {'; '.join(said)}")


def _rows(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """(names of the columns, rows of text without space around it)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a UTF-8 text file; save it as CSV UTF-8") from None
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    table = [[_text(cell) for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    if not table or len(table[0]) < 2 or len(set(table[0])) < len(table[0]) or not all(table[0]):
        found = ", ".join(table[0]) if table else "nothing"
        raise InputError(
            f"{path}: found the columns {found}, expected a column of ids and at least one more, all named"
        )
    columns = table[0]
    bad = [number for number, row in enumerate(table[1:], start=2) if len(row) != len(columns)]
    if bad:
        raise InputError(f"{path}: row {bad[0]} has another number of fields than the {len(columns)} names; mend it")
    return columns, [dict(zip(columns, row, strict=True)) for row in table[1:]]


def _text(cell: str) -> str:
    """A cell without space around it; with an apostrophe before what a spreadsheet would take for a formula.

    Numbers and a sign alone stay as they are. Cells end up in tables that people open in spreadsheets.
    """
    cell = cell.strip()
    return f"'{cell}" if cell[:1] in FORMULA and not _NUMBER.fullmatch(cell) else cell


def _id(text: str, names: Mapping[str, str]) -> str | None:
    """The id that a cell stands for: as it is, or as the name of a file."""
    text = unicodedata.normalize("NFC", text)
    return names.get(text) or names.get(PurePosixPath(text.replace("\\", "/")).stem)
