"""A stage's process: its exit code, its messages, and the package versions it is tracked with."""

import errno
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NoReturn

import yaml

from lesionseg.common.errors import InputError

SHOWN = 50  # of a long list of problems; the rest is counted
ENVIRONMENT = Path("environment.yaml")


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
            print(f"{name}: error: … and {len(error.problems) - SHOWN} more of the kind", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; `dvc repro` goes on from here", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(
            f"{name}: error: no space left on the disk of {error.filename or 'the working directory'}; "
            "free some and run `dvc repro` again",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(0)


def other_versions(stage: str, path: Path = ENVIRONMENT) -> Iterator[str]:
    """A line for every package that `path` lists for the stage in another version than the one that runs.

    The listed versions are what DVC tracks: a result made with another one is not what dvc.lock says it is.
    """
    if not path.is_file():
        return
    for package, listed in (yaml.safe_load(path.read_text(encoding="utf-8")).get(stage) or {}).items():
        try:
            running = version(package).partition("+")[0]  # without the build, such as +cpu
        except PackageNotFoundError:
            running = "none"
        if running != str(listed):
            yield f"{path} lists {package} {listed}, running is {running}; `make env` installs the listed one"
