"""A run by its name (a folder, a git revision or a DVC experiment): its per-image table and what it was trained on."""

import csv
import io
import subprocess
from pathlib import Path
from typing import NamedTuple

from lesionseg.common.errors import InputError
from lesionseg.compare import table
from lesionseg.formats.processed import TRAINED

PER_IMAGE = "plots/per_image.csv"
SAMPLES = "data/processed/samples.csv"  # in DVC's cache: there after a run, `dvc checkout` or `dvc fetch`


class EvaluatedRun(NamedTuple):
    table: table.ImageTable
    trained_on: set[str] | None  # ids of the splits train and val; None if the data is not there


def read(name: str) -> EvaluatedRun:
    """The run called `name`: an existing folder or per_image.csv, else a git revision, else an experiment.

    A folder is the top of a checkout (`.` is this one). A revision needs no data, as the table is in git.
    """
    path = Path(name)
    if path.is_file():
        return EvaluatedRun(table.read(_text(path), name), None)
    if path.is_dir():
        if not (path / PER_IMAGE).is_file():
            raise InputError(f"{name}: found no {PER_IMAGE} there, expected a checkout in which `dvc repro` has run")
        samples = path / SAMPLES
        return EvaluatedRun(
            table.read(_text(path / PER_IMAGE), name), _trained(_text(samples)) if samples.is_file() else None
        )
    commit = resolve(name)
    return EvaluatedRun(table.read(show(commit, PER_IMAGE), name), _trained_at(commit))


def resolve(name: str) -> str:
    """The commit of a git revision or of a DVC experiment in this repository."""
    for revision in (name, *_experiments(name)):
        found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if found.returncode == 0:
            return found.stdout.strip()
    raise InputError(
        f"{name}: found no folder, git revision or experiment of that name; `git log` and `dvc exp list` show all"
    )


def show(commit: str, path: str) -> str:
    """The text of a file in a commit."""
    found = _git("show", f"{commit}:{path}")
    if found.returncode:
        raise InputError(f"{path}: not in commit {commit[:9]}, expected a commit in which the pipeline has run")
    return found.stdout


def _experiments(name: str) -> list[str]:
    """Where DVC keeps the experiment of that name: refs/exps/<two digits>/<rest of the commit>/<name>."""
    return _git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").stdout.split()


def _git(*arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        raise InputError("git: not found on the path; it is needed to read another commit") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: found bytes that are not UTF-8 text, expected a CSV table") from None


def _trained(samples: str) -> set[str]:
    return {row["id"] for row in csv.DictReader(io.StringIO(samples)) if row["split"] in TRAINED}


def _trained_at(commit: str) -> set[str] | None:
    try:
        from dvc import api  # takes half a second, and folders are compared without it
        from dvc.exceptions import DvcException
    except ModuleNotFoundError:  # installed for prediction only: as if the data were not at hand
        return None
    try:
        return _trained(api.read(SAMPLES, rev=commit, encoding="utf-8"))
    except (DvcException, OSError):  # neither the cache nor a remote has the data of that commit
        return None
