"""Write a copy of plots/report.html that names the commit its results belong to: report-<commit>.html.

The page itself is an output with its checksum in dvc.lock, so it cannot name the commit that contains it.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

import yaml

PAGE = Path("plots/report.html")
PLACE = '<span id="commit">'


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    if not PAGE.is_file():
        sys.exit(f"{PAGE}: not found; run `dvc repro` or `dvc pull {PAGE}`")
    page = PAGE.read_text(encoding="utf-8")
    stages = yaml.safe_load(git("show", "HEAD:dvc.lock"))["stages"]
    listed = next((out["md5"] for out in stages["visualize"]["outs"] if out["path"] == PAGE.as_posix()), None)
    if listed != hashlib.md5(PAGE.read_bytes()).hexdigest():
        sys.exit(f"{PAGE}: not the one that dvc.lock of the last commit lists; commit dvc.lock or run `dvc checkout`")
    commit = git("rev-parse", "HEAD")
    before, _, after = page.partition(PLACE)
    copy = Path(f"report-{commit[:10]}.html")
    copy.write_text(f"{before}{PLACE}{commit}{after[after.index('</span>') :]}", encoding="utf-8")
    print(copy)


if __name__ == "__main__":
    main()
