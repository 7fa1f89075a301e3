"""`lesionseg compare A B`: the table a person reads."""

import argparse
from collections.abc import Iterable, Sequence

from lesionseg.common.errors import InputError
from lesionseg.common.text import printable
from lesionseg.compare import runs
from lesionseg.compare.comparison import Comparison, Difference, compare
from lesionseg.scoring.bootstrap import Resampling

SAMPLES, SEED = 2000, 0  # resamples of an interval, and what draws them
HEAD = ("split", "score", "A", "B", "change", "95 % interval", "B is")


def run(options: argparse.Namespace) -> None:
    """Print the comparison; InputError where a run cannot be read or the two share no image."""
    a, b = runs.read(options.a), runs.read(options.b)
    trained_on = {each.table.name: each.trained_on for each in (a, b)}
    compared = compare(a.table, b.table, Resampling(SAMPLES, SEED), trained_on)
    notes = compared.notes + [
        f"What {name} was trained on is not known here (`dvc fetch` brings it): an image that it was trained on may "
        "be among the compared ones."
        for name, ids in trained_on.items()
        if ids is None
    ]
    if not compared.differences:
        raise InputError([f"{options.a} and {options.b} share no image that can be compared", *notes])
    print(f"A: {options.a}\nB: {options.b}\n")
    rows = [_cells(each) for each in compared.differences]
    print(markdown_table(HEAD, rows) if options.markdown else plain_table(HEAD, rows))
    print()
    for line in (*image_counts(compared), *notes):
        print(printable(line))


def image_counts(compared: Comparison) -> Iterable[str]:
    """How many images of each split the scores rest on."""
    return [f"{split}: compared on {number} images." for split, number in compared.images.items()]


def _cells(difference: Difference) -> tuple[str, ...]:
    split, score, a, b, _, _, word = difference
    return (
        printable(split),
        score,
        f"{a:.4f}",
        f"{b:.4f}",
        f"{difference.change:+.4f}",
        interval_text(difference),
        word,
    )


def interval_text(difference: Difference) -> str:
    """The interval of the change as text, "none" where there are too few images."""
    return "none" if difference.low != difference.low else f"{difference.low:+.4f} to {difference.high:+.4f}"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; what would end a cell or a line is text."""
    table = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (head, ["---"] * len(head), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in table)


def plain_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same table in columns for a terminal."""
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )
