"""preprocess: check every pair, shrink it to the network's size, group duplicates, split, summarize."""

from pathlib import Path
from typing import Literal

import checkout  # noqa: F401

from lesionseg.common.errors import run_stage
from lesionseg.common.files import replaced, write_csv, write_json
from lesionseg.common.parameters import Field, Group, Runtime, load
from lesionseg.formats import manifest
from lesionseg.formats.processed import open_arrays
from lesionseg.preprocess.contact_sheet import contact_sheet, save_png
from lesionseg.preprocess.dataset import process
from lesionseg.preprocess.summary import DROPPED_COLUMNS, DUPLICATE_COLUMNS, dropped_rows, duplicate_rows, summarize

RAW = Path("data/raw")
PROCESSED = Path("data/processed")
SUMMARY = Path("metrics/data.json")
DROPPED = Path("metrics/dropped.csv")
DUPLICATES = Path("metrics/duplicates.csv")
SHEET = Path("plots/samples.png")


class Parameters(Group):
    image_size: int = Field(ge=32, le=1024, multiple_of=16)
    validation_fraction: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)
    on_invalid: Literal["fail", "drop"]
    duplicate_distance: int | None = Field(ge=0, le=96)


def main() -> None:
    parameters = load("preprocess", Parameters)
    runtime = load("runtime", Runtime)
    pairs = manifest.read(RAW)
    with replaced(PROCESSED) as folder:
        processed = process(
            RAW,
            pairs,
            folder,
            size=parameters.image_size,
            validation_fraction=parameters.validation_fraction,
            seed=parameters.seed,
            drop_invalid=parameters.on_invalid == "drop",
            duplicate_distance=parameters.duplicate_distance,
            workers=runtime.workers,
        )
    write_json(SUMMARY, summarize(processed))
    write_csv(DROPPED, DROPPED_COLUMNS, dropped_rows(processed))
    write_csv(DUPLICATES, DUPLICATE_COLUMNS, duplicate_rows(processed))
    save_png(contact_sheet(*open_arrays(PROCESSED), processed.samples), SHEET)
    print(f"{len(processed.samples)} of {len(pairs)} pairs in {PROCESSED}")


if __name__ == "__main__":
    run_stage("preprocess", main)
