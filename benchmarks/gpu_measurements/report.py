"""What was measured so far, on disk after every measurement: a run that is cut off loses only the one under way."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic, write_json

Row = dict[str, object]


class Report:
    """Rows of results by part, written to `folder`/report.json and report.md, until `seconds` have passed.

    A measurement that would not end in time is left out, one that fails is noted, and the next one goes ahead.
    """

    def __init__(self, folder: Path, seconds: float, heading: Row):
        self.folder = folder
        self.began = time.monotonic()
        self.seconds = seconds
        self.content: Row = dict(heading) | {"parts": {}, "left_out": [], "failed": []}
        folder.mkdir(parents=True, exist_ok=True)
        self._write()

    @property
    def remaining(self) -> float:
        """Seconds left."""
        return self.seconds - (time.monotonic() - self.began)

    def rows(self, part: str) -> list[Row]:
        """The rows of a part so far."""
        return self.content["parts"].get(part, [])

    def measure(self, part: str, settings: Row, measurement: Callable[[], Row], estimate: float) -> Row | None:
        """Add the row `settings` + the result of `measurement`, and return it; None where there is none.

        `estimate` is how many seconds it takes, roughly.
        """
        name = f"{part}: {_words(settings)}" if settings else part
        if self.remaining < estimate:
            self.content["left_out"].append({"part": part, **settings, "reason": "no time left"})
            self._write()
            print(f"{name}: left out, {max(self.remaining, 0):.0f} s remain", flush=True)
            return None
        began = time.monotonic()
        try:
            row = settings | measurement()
        except Missing as error:
            self.content["left_out"].append({"part": part, **settings, "reason": str(error)})
            print(f"{name}: left out, {error}", flush=True)
            row = None
        except Exception as error:  # a card that cannot do one thing is still worth measuring at the others
            reason = "out of memory" if _out_of_memory(error) else f"{type(error).__name__}: {error}".splitlines()[0]
            self.content["failed"].append({"part": part, **settings, "reason": reason})
            print(f"{name}: failed, {reason}", flush=True)
            row = None
        else:
            self.add(part, row)
            print(f"{name}: {_words(row, without=settings)} ({time.monotonic() - began:.1f} s)", flush=True)
        self.content["seconds"] = round(time.monotonic() - self.began, 1)
        self._write()
        return row

    def add(self, part: str, row: Row) -> None:
        """Add a row that is there already."""
        self.content["parts"].setdefault(part, []).append(row)
        self._write()

    def table(self) -> str:
        """All rows as Markdown, one table a part."""
        sections = []
        for part, rows in self.content["parts"].items():
            # what is a list or a table itself is in the JSON only
            columns = [key for key in dict.fromkeys(key for row in rows for key in row) if _plain(rows, key)]
            table = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
            if len(rows) == 1:
                table = [["what", "value"], *zip(*table, strict=True)]
            heading, *body = map(_line, table)
            lines = [f"## {part.replace('_', ' ')}", "", heading, _line("---" for _ in table[0]), *body]
            sections.append("\n".join(lines))
        for kind in ("left_out", "failed"):
            if self.content[kind]:
                lines = [f"- {_words(row, without=('reason',))}: {row['reason']}" for row in self.content[kind]]
                sections.append("\n".join([f"## {kind.replace('_', ' ')}", "", *lines]))
        return "\n\n".join(sections) + "\n"

    def _write(self) -> None:
        write_json(self.folder / "report.json", self.content)
        with atomic(self.folder / "report.md") as temporary:
            temporary.write_text(self.table(), encoding="utf-8")


class Missing(Exception):
    """Something a measurement needs is not there: a package, a kind of card."""


def _out_of_memory(error: Exception) -> bool:
    # training turns it into the parameters to change
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, InputError) and "does not fit into the memory" in str(error)
    )


def _plain(rows: list[Row], key: str) -> bool:
    return not any(isinstance(row.get(key), list | dict) for row in rows)


def _words(row: Row, without: object = ()) -> str:
    return ", ".join(
        f"{key} {_cell(value)}"
        for key, value in row.items()
        if key not in without and not isinstance(value, list | dict)
    )


def _line(cells) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1000
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
