"""Bad input as one clear message, never a traceback."""

from collections.abc import Iterable

from lesionseg.common.text import printable


class InputError(Exception):
    """Something the user can mend: a parameter, a file, a data set, a full disk.

    Each problem names the file or parameter, what was found, what was expected and the cure. Collect all of
    them before raising, so that one run shows everything there is to mend.
    """

    def __init__(self, problems: str | Iterable[str]):
        listed = [problems] if isinstance(problems, str) else problems
        self.problems = [printable(problem) for problem in listed]  # names in them may be a stranger's
        super().__init__("\n".join(self.problems))
