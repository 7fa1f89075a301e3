"""Text from outside, shown as text wherever it goes.

Names of images come from strangers' archives and folders, and end up in file names, CSV cells, charts, Markdown tables,
web pages and terminals. A name that one of these cannot show harmlessly is refused when it is read (`id_problem`); the
others are escaped: `printable` on a terminal, `markdown` in Markdown, mathtext off in charts, an escaping template for
pages.
"""

import re

LONGEST_ID = 200  # bytes: a copy is <id>_segmentation.<ext>, written under a longer temporary name
LONGEST_MESSAGE = 4000  # characters

# Not for file names on Windows and macOS, in zip archives, or between the bars of a table.
_RESERVED = '<>:"/\\|?*'
# A spreadsheet takes a cell that begins so for a formula, and quotation marks do not help; a program takes -x for an
# option; and a file that begins with a dot is hidden.
_OPENING = "=+-@."


def id_problem(name: str) -> str | None:
    """Why `name` cannot be the id of an image, with what to do; None: it can."""
    if not name:
        return "is empty"
    if not name.isprintable():  # undecodable bytes are surrogates here: not printable either
        return f"has unprintable characters ({name!a}); rename the file"
    if name != name.strip():
        return "begins or ends with a space; rename the file"
    if name[0] in _OPENING:
        return f"begins with {name[0]!r}, as formulas, options and hidden files do; rename the file"
    if found := sorted(set(name) & set(_RESERVED)):
        return f"has {' '.join(found)} in it, which not every system takes in file names; rename the file"
    if len(name.encode()) > LONGEST_ID:
        return f"is {len(name.encode())} bytes long, expected at most {LONGEST_ID}; rename the file"
    return None


def printable(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """`text` on one line, without control characters; cut where it is longer than `longest` characters."""
    cut = text if len(text) <= longest else text[:longest] + "…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in cut)


def markdown(text: str) -> str:
    """`text` for a cell of a Markdown table: no bar, link, image, tag or @mention comes out of it."""
    plain = re.fullmatch(r"[\w./ +-]*", text) and "www." not in text
    if plain:
        return text
    # Within <code> GitHub looks for no mentions; characters written as entities are no Markdown.
    letters = (letter if letter.isalnum() or letter in " .-" else f"&#{ord(letter)};" for letter in printable(text))
    return f"<code>{''.join(letters)}</code>"
