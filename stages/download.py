"""Fill data/raw with image-mask pairs from the chosen source."""

import os
from pathlib import Path

from lesionseg.errors import run_stage
from lesionseg.parameters import Field, Group, Literal, Runtime, load
from lesionseg.sources import folder, manifest, synthetic
from lesionseg.sources.directory import replaced

RAW = Path("data/raw")


class Parameters(Group):
    source: Literal["synthetic", "folder"]
    folder: str = Field(min_length=1)
    limit: int | None = Field(ge=1)
    seed: int = Field(ge=0)
    synthetic_images: int = Field(ge=1, le=1_000_000)


def main() -> None:
    parameters = load("download", Parameters)
    runtime = load("runtime", Runtime)
    workers = os.cpu_count() or 1 if runtime.workers is None else max(1, runtime.workers)
    with replaced(RAW) as raw:
        pairs = fetch(raw, parameters, workers)
        manifest.write(raw, pairs)
    print(f"{len(pairs)} pairs from the source {parameters.source} in {RAW}")


def fetch(raw: Path, parameters: Parameters, workers: int) -> list[manifest.Pair]:
    """Call the chosen source."""
    subset = {"limit": parameters.limit, "seed": parameters.seed}
    if parameters.source == "folder":
        return folder.fetch(raw, folder=Path(parameters.folder), workers=workers, **subset)
    return synthetic.fetch(raw, count=parameters.synthetic_images, workers=workers, **subset)


if __name__ == "__main__":
    run_stage("download", main)
