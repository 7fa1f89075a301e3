"""Licence and attribution texts that came with the data: stored beside it, quoted on the model card."""

from pathlib import Path

STEMS = ("attribution", "license", "licence")  # of such files' names, in any case
LONGEST = 100_000  # bytes of a text; a larger file is something else


def read(raw: Path) -> dict[str, str]:
    """The texts in a raw folder and in the external set within it, by their path relative to it."""
    found = {}
    for path in sorted([*raw.glob("*"), *raw.glob("external/*")]):
        if path.stem.lower() in STEMS and path.is_file() and path.stat().st_size <= LONGEST:
            found[path.relative_to(raw).as_posix()] = path.read_text(encoding="utf-8", errors="replace")
    return found
