"""Fill data/raw with image-mask pairs from the chosen source."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import checkout  # noqa: F401

from lesionseg.common.errors import InputError
from lesionseg.common.files import replaced
from lesionseg.common.parallel import worker_count
from lesionseg.common.parameters import Field, Group, Runtime, load
from lesionseg.common.stage import run_stage
from lesionseg.download import folder, isic2018, pseudonyms, synthetic
from lesionseg.download.labels import parse
from lesionseg.download.tracked import require_tracked
from lesionseg.formats import groups, manifest, metadata

RAW = Path("data/raw")
SUMS = Path("data/isic2018.sha256")  # of single files in the archives, in git
IN_GIT = ("plots/samples.png", "plots/per_image.csv", "plots/gallery.png")  # that show ids or photographs
WORK = Path(".cache/download")  # not an output of DVC's, so that fetched files survive an interrupted run


class Parameters(Group):
    source: Literal["synthetic", "isic2018", "folder"]
    limit: int | None = Field(ge=1)
    seed: int = Field(ge=0)
    synthetic_images: int = Field(ge=1, le=1_000_000)
    folder: str = Field(min_length=1)
    mask_lesion: int | str | None
    mask_background: int | str | None
    mask_void: int | str | None
    mask_suffix: str | None = Field(min_length=1)
    keep_splits: bool
    private_ids: bool
    test_set: isic2018.TestSet
    base_url: str | None = Field(pattern="^https?://.+")
    archives: str | None = Field(min_length=1)
    external: str | None = Field(min_length=1)
    allow_http: bool


def main() -> None:
    parameters = load("download", Parameters)
    runtime = load("runtime", Runtime)
    if parameters.test_set != "none" and parameters.source != "isic2018":
        raise InputError(
            f"params.yaml: download.test_set: found {parameters.test_set}, but the source {parameters.source} has no "
            "official test set; set none, or download.source to isic2018"
        )
    if parameters.source == "folder":
        require_tracked("download.folder", parameters.folder)
    if parameters.external is not None:
        require_tracked("download.external", parameters.external)
    with replaced(RAW) as raw:
        pairs = fetch(raw, parameters, runtime.workers)
        if parameters.external is not None:
            pairs += fetch_external(raw, Path(parameters.external), parameters, worker_count(runtime.workers))
        manifest.write(raw, pairs)
    print(f"{len(pairs)} pairs from the source {parameters.source} in {RAW}")
    if (parameters.source == "folder" or parameters.external is not None) and not parameters.private_ids:
        print(
            "download: warning: file names and small pictures of your own data go into files that git keeps "
            f"({', '.join(IN_GIT)}); `make exp PROFILE=private` keeps them out (docs/data-own.md)",
            file=sys.stderr,
        )


def fetch(raw: Path, parameters: Parameters, workers: int | None) -> list[manifest.Pair]:
    """Fill `raw` from the chosen source."""
    limit, seed = parameters.limit, parameters.seed
    match parameters.source:
        case "synthetic":
            count = parameters.synthetic_images
            return synthetic.fetch(raw, count=count, limit=limit, seed=seed, workers=worker_count(workers))
        case "folder":
            return folder.fetch(
                raw,
                folder=Path(parameters.folder),
                limit=limit,
                seed=seed,
                workers=worker_count(workers),
                reading=reading(parameters),
            )
        case "isic2018":
            archives = Path(parameters.archives) if parameters.archives else None
            origin = isic2018.Origin(archives, parameters.base_url, parameters.allow_http)
            choice = isic2018.Choice(limit, seed, parameters.test_set)
            return isic2018.fetch(raw, choice, origin, work=WORK, record=SUMS, workers=workers)


def reading(parameters: Parameters) -> folder.Reading:
    """How to read a folder of own data; also an external set, apart from its splits."""
    labels = parse(parameters.mask_lesion, parameters.mask_background, parameters.mask_void)
    return folder.Reading(labels, parameters.mask_suffix, parameters.keep_splits, parameters.private_ids)


def fetch_external(raw: Path, source: Path, parameters: Parameters, workers: int) -> list[manifest.Pair]:
    """Copy the labelled set that is only evaluated; a prefix tells its ids from those of the source."""
    target = raw / "external"
    target.mkdir()
    whole = replace(reading(parameters), keep_splits=False)  # all of it is evaluated
    pairs = folder.fetch(target, folder=source, limit=None, seed=0, workers=workers, reading=whole)
    groups.move(target, raw, "external_")
    metadata.move(target, raw, "external_")
    pseudonyms.move(target, raw, "external_")
    return [
        replace(
            pair,
            id=f"external_{pair.id}",
            image=f"external/{pair.image}",
            mask=f"external/{pair.mask}",
            subset="external",
        )
        for pair in pairs
    ]


if __name__ == "__main__":
    run_stage("download", main)
