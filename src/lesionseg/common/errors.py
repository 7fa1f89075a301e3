"""Bad input as one clear message, never a traceback."""

import errno
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from lesionseg.common.text import printable

SHOWN = 50  # of a long list of problems; the rest is counted


class InputError(Exception):
    """Something the user can mend: a parameter, a file, a data set, a full disk.

    Each problem names the file or parameter, what was found, what was expected and the cure. Collect all of
    them before raising, so that one run shows everything there is to mend.
    """

    def __init__(self, problems: str | Iterable[str]):
        listed = [problems] if isinstance(problems, str) else problems
        self.problems = [printable(problem) for problem in listed]  # names in them may be a stranger's
        super().__init__("\n".join(self.problems))


def run_stage(name: str, main: Callable[[], None]) -> NoReturn:
    """Run a stage's `main` and exit: 0, or 1 with the problems on stderr, or 130 on Ctrl-C."""
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
