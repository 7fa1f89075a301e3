"""preprocess: check every pair, shrink it to the network's size, group duplicates, split, summarize."""

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import checkout  # noqa: F401

from lesionseg.common.errors import InputError
from lesionseg.common.files import replaced, write_csv, write_json
from lesionseg.common.parameters import Field, Group, Runtime, load
from lesionseg.common.stage import run_stage
from lesionseg.formats import groups, manifest
from lesionseg.formats.processed import open_folders
from lesionseg.images.withheld import withhold
from lesionseg.preprocess.contact_sheet import contact_sheet, save_png
from lesionseg.preprocess.dataset import DataSetSettings, process
from lesionseg.preprocess.summary import (
    DROPPED_COLUMNS,
    DUPLICATE_COLUMNS,
    dropped_rows,
    duplicate_rows,
    headline,
    summarize,
)

RAW = Path("data/raw")
PROCESSED, HELD_OUT = Path("data/processed"), Path("data/held_out")  # what is trained on; what is only evaluated
SUMMARY = Path("data/summary")
HEADLINE = Path("metrics/data.json")
SHEET = Path("plots/samples.png")


class Parameters(Group):
    image_size: int = Field(ge=32, le=1024, multiple_of=16)
    validation_fraction: float = Field(gt=0, lt=1)
    test_fraction: float = Field(ge=0, lt=1)
    seed: int = Field(ge=0)
    on_invalid: Literal["fail", "drop"]
    duplicate_distance: int | None = Field(ge=0, le=96)
    pictures_in_git: bool


def main() -> None:
    parameters = load("preprocess", Parameters)
    runtime = load("runtime", Runtime)
    if parameters.validation_fraction + parameters.test_fraction >= 1:
        raise InputError(
            f"params.yaml: preprocess.test_fraction: found {parameters.test_fraction} beside a validation_fraction of "
            f"{parameters.validation_fraction}, which leaves nothing to train on; expected a sum below 1"
        )
    pairs = manifest.read(RAW)
    settings = DataSetSettings(
        size=parameters.image_size,
        validation_fraction=parameters.validation_fraction,
        test_fraction=parameters.test_fraction,
        seed=parameters.seed,
        drop_invalid=parameters.on_invalid == "drop",
        duplicate_distance=parameters.duplicate_distance,
    )
    with replaced(PROCESSED) as trained, replaced(HELD_OUT) as held_out:
        links = groups.links(groups.read(RAW))
        data = process(RAW, pairs, (trained, held_out), settings, runtime.workers, links)
    for warning in data.warnings:
        print(f"preprocess: warning: {warning}", file=sys.stderr)
    summary = {"sources": dict(Counter(pair.source for pair in pairs))} | summarize(data)
    write_json(SUMMARY / "summary.json", summary)
    write_csv(SUMMARY / "dropped.csv", DROPPED_COLUMNS, dropped_rows(data))
    write_csv(SUMMARY / "duplicates.csv", DUPLICATE_COLUMNS, duplicate_rows(data))
    write_json(HEADLINE, headline(summary))
    if parameters.pictures_in_git:
        both = open_folders(PROCESSED, HELD_OUT)
        save_png(contact_sheet(both.images, both.masks, both.samples), SHEET)
    else:
        withhold(SHEET, "preprocess.pictures_in_git")
    print(f"{len(data.samples)} of {len(pairs)} pairs in {PROCESSED} and {HELD_OUT}")


if __name__ == "__main__":
    run_stage("preprocess", main)
