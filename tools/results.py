"""Print the tables of docs/results.md from the files of each run in docs/results/: python tools/results.py table

    python tools/results.py record CHECKOUT RUN   # take the small files of a finished run into docs/results/RUN/
    python tools/results.py table [RUN ...]     # print the tables of these runs, of all without a name

Every score is computed here from `per_image.csv`, one row an evaluated image, with its pixel counts. In brackets the
95 % bootstrap interval over duplicate groups. A folder of a run holds what identifies it: parameters, package versions,
dvc.lock with the sums of data, code and model, the split of every image, and run.yaml: the change in words, the commit
and what it cost.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import yaml

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from lesionseg.common.errors import InputError  # noqa: E402
from lesionseg.compare import table  # noqa: E402
from lesionseg.evaluate.breakdowns import by_metadata, by_property  # noqa: E402
from lesionseg.formats import metadata  # noqa: E402
from lesionseg.scoring import scores  # noqa: E402
from lesionseg.scoring.bootstrap import Resampling, intervals, mean_intervals  # noqa: E402
from lesionseg.scoring.counts import Counts  # noqa: E402

RUNS = REPOSITORY / "docs/results"
RESAMPLING = Resampling(samples=2000, seed=0)
OVERLAP = ("dice", "iou", "precision", "recall")
SPLITS = {"val": "val", "test": "test", "external": "other photographs"}  # in this order
FILES = {  # of a checkout, under which name
    "params.yaml": "params.yaml",
    "environment.yaml": "environment.yaml",
    "dvc.lock": "dvc.lock",
    "metrics/evaluation.json": "evaluation.json",
    "plots/per_image.csv": "per_image.csv",
}
SPLIT_TABLES = ("data/processed/samples.csv", "data/held_out/samples.csv")
MEMBER = "per_image-member{}.csv"  # a single network of an ensemble, evaluated with the same settings


class Estimate:
    """A score with its interval."""

    def __init__(self, value: float, low: float, high: float):
        self.value, self.low, self.high = value, low, high

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.value:.3f}"  # too few images
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def split_scores(images: table.ImageTable, split: str) -> dict[str, Estimate]:
    """Every score of a split: `pooled dice`, `per image iou`, `threshold_jaccard`, `failures`, …"""
    keys = [key for key in images.rows if key[0] == split]
    counts = images.counts(keys)
    each = {f"per image {name}": scores.OVERLAP[name](Counts.of(counts)) for name in OVERLAP}
    native = images.values("jaccard_native", keys)
    failed = native < scores.FAILURE
    each |= {"threshold_jaccard": np.where(failed, 0, native), "failures": failed.astype(float)}
    means = np.column_stack(list(each.values()))

    def statistic(weights: np.ndarray) -> np.ndarray:
        pooled = Counts.of(weights @ counts)
        return np.column_stack(
            [*(scores.OVERLAP[name](pooled) for name in OVERLAP), weights @ means / weights.sum(1, keepdims=True)]
        )

    names = [*(f"pooled {name}" for name in OVERLAP), *each]
    values = statistic(np.ones((1, len(keys))))[0]
    low, high = intervals(statistic, images.groups(keys), RESAMPLING)
    return {name: Estimate(*ends) for name, *ends in zip(names, values, low, high, strict=True)}


def run_table(folder: Path) -> Iterator[str]:
    """The Markdown table of a run: each split pooled and per image, then each network of its ensemble alone."""
    yield "| images | averaged | Dice | IoU | precision | recall | threshold Jaccard | failures |"
    yield "|---|---|---|---|---|---|---|---|"
    images = read(folder / "per_image.csv")
    for split in sorted(images.splits(), key=list(SPLITS).index):
        yield from _rows(images, split, f"{SPLITS[split]}, {len(images.ids(split))}")
    for member in sorted(folder.glob(MEMBER.format("*"))):
        alone = read(member)
        number = member.stem.removeprefix(MEMBER.format("").removesuffix(".csv"))
        for split in sorted(alone.splits(), key=list(SPLITS).index):
            yield from _rows(alone, split, f"{SPLITS[split]}, network {number} alone")


def _rows(images: table.ImageTable, split: str, title: str) -> Iterator[str]:
    found = split_scores(images, split)
    official = [str(found["threshold_jaccard"]), str(found["failures"])]
    for how, last in (("pooled", ["", ""]), ("per image", official)):
        yield _row(title if how == "pooled" else "", how, *(str(found[f"{how} {name}"]) for name in OVERLAP), *last)


def breakdown_table(folder: Path, split: str = "test") -> Iterator[str]:
    """Means over groups of images: by what the picture shows, and by the columns of metadata.csv."""
    yield _row("groups", "group", "images", "Dice per image", "IoU per image", "threshold Jaccard", "failures")
    yield _row(*["---"] * 7)
    images = read(folder / "per_image.csv")
    keys = [key for key in images.rows if key[0] == split]
    shown = {  # an empty cell is undefined, such as the contrast of an image that is all lesion
        name: np.array([float(images.rows[key][name] or "nan") for key in keys])
        for name in ("lesion_fraction", "touches_border", "contrast", "hair")
    }
    known = metadata.read(folder)
    columns = {name: images.values(name, keys) for name in ("dice", "iou", "threshold_jaccard", "failed")}
    for name, groups in (by_property(shown) | by_metadata([name for _, name in keys], known.rows)).items():
        for group, members in groups.items():
            values = {column: numbers[members] for column, numbers in columns.items()}
            of = [one for one, member in zip(images.groups(keys), members, strict=True) if member]
            ends = mean_intervals(values, of, RESAMPLING) if of else {}
            found = (
                [str(Estimate(float(values[column].mean()), *ends[column])) for column in columns] if of else [""] * 4
            )
            yield _row(name.removeprefix("by_"), group, str(len(of)), *found)


def ladder(folders: Sequence[Path]) -> Iterator[str]:
    """One row per run, on its test split, else val: the change, where and what it cost, its scores, its commit."""
    scored = ("pooled dice", "pooled iou", "per image iou", "threshold_jaccard", "failures")
    words = ("pooled Dice", "pooled IoU", "IoU per image", "threshold Jaccard", "failures")
    yield _row("run", "machine", "core-minutes", "images", *words, "commit")
    yield _row(*["---"] * 10)
    for folder in folders:
        run, images = yaml.safe_load((folder / "run.yaml").read_text("utf-8")), read(folder / "per_image.csv")
        split = "test" if "test" in images.splits() else "val"
        found = split_scores(images, split)
        yield _row(
            f"{folder.name}: {run['change']}",
            _machine(folder),
            f"{run['core_minutes']:.0f}",
            f"{len(images.ids(split))} {split}",
            *(str(found[name]) for name in scored),
            run["commit"][:9],
        )


def _machine(folder: Path) -> str:
    """What the run was evaluated on, and so far also trained, and in which number format it was trained."""
    ran = json.loads((folder / "evaluation.json").read_text("utf-8"))["ran"]
    return f"{ran['device']}, {ran['trained_in']}"


def exploration() -> Iterator[str]:
    """The trials outside the ladder, as recorded then: their per-image tables no longer exist."""
    yield _row("trial", "images", "pooled Dice", "pooled IoU", "IoU per image", "threshold Jaccard", "failures")
    yield _row(*["---"] * 7)
    numbers = ("dice", "iou", "per_image_iou", "threshold_jaccard", "failures")
    with open(RUNS / "exploration.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield _row(row["change"], row["images"], *(f"{float(row[name]):.3f}" for name in numbers))


def recorded_runs() -> list[str]:
    return sorted(path.parent.name for path in RUNS.glob("*/run.yaml"))


def read(path: Path) -> table.ImageTable:
    return table.read(path.read_text("utf-8"), str(path))


def record(checkout: Path, run: str, **facts: object) -> Path:
    """Copy the small files of a finished run into docs/results/RUN/; `facts` go into its run.yaml.

    Paths of the photographs' folders on this machine are shortened to the folders' names.
    """
    if missing := [name for name in (*FILES, *SPLIT_TABLES) if not (checkout / name).is_file()]:
        raise InputError(
            f"{checkout}: found no {', '.join(missing)}; expected a checkout in which the pipeline has run"
        )
    folder = RUNS / run
    folder.mkdir(parents=True, exist_ok=True)
    parameters = yaml.safe_load((checkout / "params.yaml").read_text("utf-8"))["download"]
    places = [Path(place) for place in (parameters["folder"], parameters.get("external")) if place]
    for name, target in FILES.items():
        text = (checkout / name).read_text("utf-8")
        for place in places:
            text = text.replace(place.as_posix(), place.name)
        (folder / target).write_text(text, encoding="utf-8", newline="\n")
    pairs = [row for name in SPLIT_TABLES for row in csv.DictReader(io.StringIO((checkout / name).read_text("utf-8")))]
    lines = [f"{row['id']},{row['split']}" for row in sorted(pairs, key=lambda row: row["id"])]
    (folder / "splits.csv").write_text("\n".join(["id,split", *lines, ""]), encoding="utf-8", newline="\n")
    evaluated = {row["id"] for row in pairs if row["split"] != "train"}
    known = metadata.read(checkout / "data/raw")
    if rows := {name: row for name, row in known.rows.items() if name in evaluated}:
        (folder / metadata.NAME).unlink(missing_ok=True)
        metadata.add(folder, known.columns, rows)
    (folder / "run.yaml").write_text(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=110), "utf-8")
    return folder


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorded = commands.add_parser("record")
    recorded.add_argument("checkout", type=Path)
    recorded.add_argument("run")
    recorded.add_argument("--change", required=True, help="what the run is, in a few words")
    recorded.add_argument("--core-minutes", type=float, required=True, help="CPU time of the training")
    tables = commands.add_parser("table")
    tables.add_argument("run", nargs="*")
    arguments = parser.parse_args()
    try:
        if arguments.command == "record":
            facts = {"change": arguments.change, "commit": commit_of(arguments.checkout)}
            record(arguments.checkout, arguments.run, **facts, core_minutes=arguments.core_minutes)
            return 0
        names = arguments.run or recorded_runs()
        for name in names:
            print(f"{name}\n", *run_table(RUNS / name), "", *breakdown_table(RUNS / name), "", sep="\n")
        print("ladder\n", *ladder([RUNS / name for name in names]), sep="\n")
        if not arguments.run:
            print("\nexploration\n", *exploration(), sep="\n")
    except InputError as error:
        print(*(f"results: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
