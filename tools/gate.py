"""Fail if dvc.lock or a small result in git does not belong to the code and parameters: `make gate`.

Needs no data and no remote: what DVC caches is judged by its entry in dvc.lock, the rest by its bytes.
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import documents

from lesionseg.common.errors import InputError
from lesionseg.common.text import printable

CURE = "Run `dvc repro` and commit dvc.lock, metrics/ and plots/ with the change."


def problems(root: Path) -> list[str]:
    """What does not belong together in the checkout at `root`, in sentences; empty if everything does."""
    try:
        files = {name: documents.mapping((root / name).read_bytes(), name) for name in ("dvc.yaml", "dvc.lock")}
        # Changes by hand first: without data DVC cannot even pretend to run their stage, and says less.
        return list(changed_by_hand(root, *(content["stages"] for content in files.values()))) or stale(root)
    except (OSError, InputError) as error:
        return [f"dvc.yaml or dvc.lock cannot be read: {error}"]
    except (AttributeError, TypeError, KeyError, ValueError):
        return ["dvc.yaml or dvc.lock cannot be read: the stages are not in the form that DVC writes"]


def stale(root: Path) -> list[str]:
    """The stages that `dvc repro` would run, as far as that can be told without data."""
    command = [sys.executable, "-m", "dvc", "repro", "--dry", "--allow-missing"]
    dry = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    would_run = [line.split("'")[1] for line in dry.stdout.splitlines() if line.startswith("Running stage")]
    # A changed stage without its data: DVC looks for its result in the run cache, and fails on the data.
    would_run += re.findall(r"failed to reproduce '([^']+)': \[Errno 2\]", dry.stderr)
    if would_run:
        return [f"dvc.lock is stale: `dvc repro` would run {', '.join(would_run)}. {CURE}"]
    if dry.returncode:
        return [f"dvc repro --dry --allow-missing fails:\n{dry.stdout}{dry.stderr}"]
    return []


def changed_by_hand(root: Path, pipeline: dict, locked: dict) -> Iterator[str]:
    """Each result in git that is missing, or whose bytes are not those listed in dvc.lock."""
    for name, stage in pipeline.items():
        for path in in_git(stage):
            entries = {out["path"]: out["md5"] for out in (locked.get(name) or {}).get("outs", [])}
            if path not in entries:
                yield f"{path}: dvc.lock does not list it among the outputs of {name}. {CURE}"
            elif not (root / path).is_file():
                yield f"{path}: missing, a result of {name} that belongs in git; `git checkout -- {path}`"
            elif hashlib.md5((root / path).read_bytes()).hexdigest() != entries[path]:
                yield f"{path}: changed by hand, it is not what {name} wrote; `git checkout -- {path}` or run it again"


def in_git(stage: dict) -> list[str]:
    """The outputs of a stage that DVC does not cache."""
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])]
    return [
        path
        for entry in entries
        if isinstance(entry, dict)
        for path, options in entry.items()
        if (options or {}).get("cache") is False
    ]


def main() -> int:
    found = problems(Path.cwd())
    for problem in found:
        print(f"gate: {printable(problem)}")
    if not found:
        print("gate: dvc.lock belongs to this code and these parameters")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
