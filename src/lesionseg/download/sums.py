"""The SHA-256 of every file taken from the official archives, recorded in git: later downloads must agree.

An archive's own directory holds CRC-32 sums, which protect against accidents but not against a malicious server. The
challenge publishes no sums of single files, so they are recorded once all files of a download have arrived and agree
with their archive, and every later download is checked against them, on any machine and from any server. Lines are as
sha256sum writes them: `<64 hex digits>  <archive>/<file>`, sorted, so that changes show in review.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic

_LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def read(path: Path) -> dict[str, str]:
    """The SHA-256, in hexadecimal, by `<archive>/<file>`; empty if `path` is missing. InputError if it is damaged."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; restore it (git checkout {path})") from None
    matches = [_LINE.fullmatch(line) for line in lines]
    if problems := [
        f"{path}: line {number}: expected '<64 hex digits>  <archive>/<file>'; restore it (git checkout {path})"
        for number, match in enumerate(matches, 1)
        if not match
    ]:
        raise InputError(problems)
    return {match[2]: match[1] for match in matches if match}


def add(path: Path, found: Mapping[str, str]) -> int:
    """Record the sums in `found` that are new; return their number."""
    known = read(path)
    if new := found.keys() - known.keys():
        lines = sorted(f"{digest}  {name}" for name, digest in {**found, **known}.items())
        lines.sort(key=lambda line: line[66:])
        with atomic(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(new)
