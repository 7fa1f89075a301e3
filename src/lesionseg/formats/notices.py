"""Licence and attribution texts that came with the data: kept beside it, quoted where it is spoken of."""

from pathlib import Path

STEMS = ("attribution", "license", "licence")  # of such files' names, in any case
LONGEST = 100_000  # bytes of a text; what is larger is something else


def read(raw: Path) -> dict[str, str]:
    """The texts in a raw folder and in the external set within it, by their path in it."""
    found = {}
    for path in sorted([*raw.glob("*"), *raw.glob("external/*")]):
        if path.stem.lower() in STEMS and path.is_file() and path.stat().st_size <= LONGEST:
            found[path.relative_to(raw).as_posix()] = path.read_text(encoding="utf-8", errors="replace")
    return found
