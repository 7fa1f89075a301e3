"""Climb a ladder of settings: each rung is a run of the pipeline in a clone, recorded in docs/results/.

    python benchmarks/ladder.py FOLDER [RUNG ...] [--rungs benchmarks/ladder.yaml] [--work .cache/ladder]

FOLDER holds image-mask pairs (docs/data-own.md); the word isic2018 in its place fetches the official archives, whose
rungs get names of their own, such as quick-3-isic2018. Every rung starts from the committed parameters, adds the
settings of its profile and then its own, and runs up to `evaluate`; data and models go into this repository's cache, so
that rungs share what they have in common. A rung with `without` leaves a group of metadata.csv out of the training
images and splits the others as a run in docs/results/ did, so that both are scored on the same test images; one with
`test_of` keeps the test images of such a run and divides the others itself (on the official archives: all). A killed
rung is resumed; one that is already in docs/results/ is not run again. Core-minutes are the CPU time of the stage
`train`, which other load on the machine hardly changes. At the end the table of all rungs is printed
(python tools/results.py table).
"""

import argparse
import csv
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "tools"))

import results  # noqa: E402

from lesionseg.download.layout import find_layout  # noqa: E402
from lesionseg.formats import metadata, notices  # noqa: E402


def settings(rung: Mapping) -> list[str]:
    """The `key=value` settings of a rung: those of its profile, then its own, which take precedence."""
    lines = []
    if profile := rung.get("profile"):
        text = (REPOSITORY / "profiles" / f"{profile}.txt").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [*lines, *(f"{name}={value}" for name, value in rung.get("settings", {}).items())]


def climb(name: str, rung: Mapping, photographs: str, clone: Path) -> None:
    """Run one rung in the clone and record its results."""
    run(clone, "git", "checkout", "--quiet", "--force", "HEAD")
    source = [f"download.source={OFFICIAL}"]
    if group := rung.get("without"):
        photographs = str(without(group, Path(photographs), clone.with_name(f"{name}-pairs")))
    elif photographs != OFFICIAL and (tested := rung.get("test_of")):
        photographs = str(with_test_of(tested, Path(photographs), clone.with_name(f"{name}-pairs")))
    if photographs != OFFICIAL:
        run(clone, sys.executable, "tools/own.py", photographs)
        source = ["download.source=folder", f"download.folder={photographs}"]
    chosen = [part for setting in (*source, *settings(rung)) for part in ("-S", setting)]
    run(clone, *DVC, "exp", "run", *chosen, "preprocess")
    before = cpu_seconds()
    run(clone, *DVC, "repro", "train")
    minutes = (cpu_seconds() - before) / 60
    run(clone, *DVC, "repro", "evaluate")
    facts = {"change": rung["change"], "commit": results.commit_of(clone), "core_minutes": round(minutes, 1)}
    results.record(clone, name, **facts)


OFFICIAL = "isic2018"
DVC = (sys.executable, "-m", "dvc")


def without(group: Mapping, photographs: Path, target: Path) -> Path:
    """A copy of the pairs, split as in the run `splits_of`, without the training images with `value` in `column`."""
    rows = metadata.read(photographs).rows
    members = {name for name, row in rows.items() if row[group["column"]] == group["value"]}
    splits = splits_of(group["splits_of"])
    kept = {name: split for name, split in splits.items() if not (split == "train" and name in members)}
    return copied(kept, photographs, target)


def with_test_of(tested: str, photographs: Path, target: Path) -> Path:
    """A copy of the pairs of the run `tested` with the same test images; the others are in no directory of a split."""
    directories = {name: split if split == "test" else "divided" for name, split in splits_of(tested).items()}
    return copied(directories, photographs, target)


def splits_of(name: str) -> dict[str, str]:
    """The split of every image of a run in docs/results/."""
    with open(results.RUNS / name / "splits.csv", encoding="utf-8", newline="") as file:
        return {row["id"]: row["split"] for row in csv.DictReader(file)}


def copied(directories: Mapping[str, str], photographs: Path, target: Path) -> Path:
    """A copy, in `target`, of the pairs that have a directory, in that directory, of metadata.csv and of notices."""
    shutil.rmtree(target, ignore_errors=True)
    for name, pair in find_layout(photographs).pairs.items():
        if directory := directories.get(name):
            for path in (pair.image, *pair.masks):
                copy = target / directory / path.relative_to(photographs)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, copy)
    for path in photographs.iterdir():
        if path.is_file() and (path.name == metadata.NAME or path.stem.lower() in notices.STEMS):
            shutil.copy(path, target)
    return target


def run(folder: Path, *command: str) -> None:
    """Run a command in `folder` and show its output; a failure ends the ladder."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path}, check=True)


def cpu_seconds() -> float:
    """CPU seconds of all commands that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cloned(work: Path) -> Path:
    """A clone of the committed state at `work`, with the cache of this repository."""
    if not work.exists():
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(work)], check=True)
        run(work, *DVC, "cache", "dir", "--local", str(REPOSITORY / ".dvc/cache"))
    else:
        run(work, "git", "fetch", "--quiet", "origin")
        run(work, "git", "checkout", "--quiet", "--force", "--detach", results.commit_of(REPOSITORY))
    return work


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("rung", nargs="*")
    parser.add_argument("--rungs", type=Path, default=REPOSITORY / "benchmarks/ladder.yaml")
    parser.add_argument("--work", type=Path, default=REPOSITORY / ".cache/ladder")
    given = parser.parse_args(arguments)
    rungs = yaml.safe_load(given.rungs.read_text(encoding="utf-8"))
    if unknown := set(given.rung) - rungs.keys():
        parser.error(f"{', '.join(sorted(unknown))}: not in {given.rungs}, which has {', '.join(rungs)}")
    official = given.folder == OFFICIAL
    chosen = given.rung or [name for name, rung in rungs.items() if not (official and "without" in rung)]
    if official and (divided := [name for name in chosen if "without" in rungs[name]]):
        parser.error(f"{', '.join(divided)}: needs a FOLDER with metadata.csv, which the official archives lack")
    photographs = OFFICIAL if official else str(Path(given.folder).expanduser().absolute())
    wanted = {f"{name}-{OFFICIAL}" if official else name: rungs[name] for name in chosen}
    clone = cloned(given.work.absolute())
    for name, rung in wanted.items():
        if not (results.RUNS / name / "run.yaml").is_file():
            print(f"== {name}: {rung['change']}", flush=True)
            climb(name, rung, photographs, clone)
    print(*results.ladder([results.RUNS / name for name in wanted]), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
