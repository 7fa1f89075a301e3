"""Files and directories that are whole or absent: written under a temporary name, then renamed."""

import csv
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; rename it to `path` on success, remove it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replaced(target: Path) -> Iterator[Path]:
    """Give an empty directory beside `target` to fill; put it in its place on success, remove it on failure.

    The name is always the same, `.<name>.partial`, so that what a killed run left is cleared by the next one.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if target.exists():
            shutil.rmtree(target)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(path: str | Path, content: Mapping) -> None:
    """Write JSON in the given key order. NaN and infinity are refused (ValueError): they are not JSON."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping]) -> None:
    """Write rows as CSV with a header and \\n line ends; a row with an unknown or missing column is refused."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval=None, extrasaction="raise")
        writer.writeheader()
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"{path}: a row has the columns {list(row)}, expected {list(columns)}")
            writer.writerow(row)


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """Read a CSV file with a header: one dict of strings per row."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
