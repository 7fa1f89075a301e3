"""A stage's process: its exit code, its messages, and the package versions it is tracked with."""

import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

import yaml

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic
from lesionseg.common.text import printable

SHOWN = 50  # of a long list of problems; all of them go to a file
ALL_PROBLEMS = Path(".cache")  # where that file is; not an output of DVC's
ENVIRONMENT = Path("environment.yaml")
TEMPORARY = "/.dvc/tmp/exps/"  # where DVC makes the copies for `dvc exp run --temp` and the queue
SYSTEM: dict[
    int | None, tuple[str, str]
] = {  # errors of the operating system that the user can mend: what it is, and the cure
    errno.ENOSPC: ("no space left on the disk", "free some"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or have the quota raised"),
    errno.EFBIG: (
        "the file is larger than its disk or `ulimit -f` allows",
        "have the limit raised or use another disk",
    ),
    errno.ENAMETOOLONG: ("the name is too long for the disk", "rename it or work in a directory of a shorter name"),
    errno.EACCES: ("no permission", "grant it (chmod, chown)"),
    errno.EPERM: ("no permission", "grant it (chmod, chown)"),
    errno.EROFS: ("the disk is read-only", "use another one"),
}


def run_stage(name: str, main: Callable[[], None]) -> NoReturn:
    """Run a stage's `main` and exit: 0, or 1 with the problems on stderr, or 130 on Ctrl-C."""
    for warning in other_versions(name):
        print(f"{name}: warning: {warning}", file=sys.stderr)
    try:
        main()
    except InputError as error:
        for problem in error.problems[:SHOWN]:
            print(f"{name}: error: {problem}", file=sys.stderr)
        if len(error.problems) > SHOWN:
            more = f"… and {len(error.problems) - SHOWN} more{_listed(name, error.problems)}"
            print(f"{name}: error: {more}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {_what_remains()}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not (refused := _refused_by_the_system(error)):
            raise
        what, cure = SYSTEM[refused.errno]
        where = printable(str(refused.filename or "the working directory"))
        print(f"{name}: error: {where}: {what}; {cure} and run `dvc repro` again", file=sys.stderr)
        sys.exit(1)
    sys.exit(0)


def _what_remains() -> str:
    if TEMPORARY in Path.cwd().as_posix():
        return "DVC deletes this copy of the repository: the experiment starts anew"
    return "`dvc repro` goes on from here"


def _listed(name: str, problems: Sequence[str]) -> str:
    """Write all problems to a file, and say where; "" if it cannot be written."""
    path = ALL_PROBLEMS / f"{name}-problems.txt"
    try:
        with atomic(path) as temporary:
            temporary.write_text("".join(f"{problem}\n" for problem in problems), encoding="utf-8")
    except OSError:
        return ""
    return f"; all {len(problems)} are in {path}"


def _refused_by_the_system(error: BaseException | None) -> OSError | None:
    """The error of SYSTEM behind this one: libraries turn a failed write into errors of their own."""
    while error:
        if isinstance(error, OSError) and error.errno in SYSTEM:
            return error
        error = error.__cause__ or error.__context__
    return None


def other_versions(stage: str, path: Path = ENVIRONMENT) -> Iterator[str]:
    """A line for every package whose running version differs from the one that `path` lists for the stage.

    The listed versions are what DVC tracks: a result made with another one is not what dvc.lock says it is.
    """
    running = versions(stage, path)
    for package, listed in _computing(stage, path).items():
        if running[package].partition("+")[0] != listed:  # without the build, such as +cpu
            yield f"{path} lists {package} {listed}, running is {running[package]}; `make env` installs the listed one"


def versions(stage: str, path: Path = ENVIRONMENT) -> dict[str, str]:
    """Package -> the version that runs ("none": not installed), of those that `path` lists for the stage."""
    found = {}
    for package in _computing(stage, path):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def _computing(stage: str, path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    listed = yaml.safe_load(path.read_text(encoding="utf-8")).get(stage) or {}
    return {package: str(number) for package, number in listed.items()}
