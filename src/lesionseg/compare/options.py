"""`lesionseg compare A B`: its options. They are shown without NumPy and SciPy."""

import argparse

DESCRIPTION = """\
Compare two runs on the images both were evaluated on: each score of A and B, the difference B - A with its paired
95 % interval (duplicate groups are resampled), and a word: better, worse, within noise. A and B are folders (`.` is
this one), git revisions or DVC experiments; from a clone without data, revisions work as well."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("a", metavar="A", help="the run compared with: a folder, a git revision or an experiment")
    parser.add_argument("b", metavar="B", nargs="?", default=".", help="the run of interest; default: this folder")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")


def run(options: argparse.Namespace) -> None:
    """Print the comparison; InputError where a run cannot be read or the two share no image."""
    from lesionseg.compare import command

    command.run(options)
