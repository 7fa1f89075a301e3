"""The JSON of `dvc metrics diff` or `dvc params diff` as a Markdown table.

DVC's own --md puts values between the bars as they are, and a pull request may set a parameter to any Markdown: here
they stay text.
"""

import json
import sys
from pathlib import Path

# text.py needs nothing but Python: the library itself is not installed where this runs
sys.path.insert(0, str(Path(__file__).parents[1] / "src/lesionseg/common"))
from text import markdown


def shown(value: object) -> str:
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def main() -> None:
    diff = json.load(sys.stdin)
    rows = [(path, name, change) for path, changes in sorted(diff.items()) for name, change in sorted(changes.items())]
    if not rows:
        print("No change.\n")
        return
    sides = {"Before": "old", "After": "new"}
    if any("diff" in change for _, _, change in rows):  # parameters have none
        sides["Change"] = "diff"
    head = ["File", "Name", *sides]
    print(f"| {' | '.join(head)} |", "|---" * len(head) + "|", sep="\n")
    for path, name, change in rows:
        cells = [path, name, *(shown(change.get(side)) for side in sides.values())]
        print(f"| {' | '.join(map(markdown, cells))} |")
    print()


main()
