"""Score the network on the images it was not trained on, at its own resolution and at the original's."""

from functools import partial
from pathlib import Path
from typing import Literal

import checkout  # noqa: F401

from lesionseg.common.files import write_csv, write_json
from lesionseg.common.hardware import choose_device, describe_device
from lesionseg.common.parallel import worker_count
from lesionseg.common.parameters import Field, Group, Runtime, load
from lesionseg.common.stage import run_stage
from lesionseg.evaluate import submission
from lesionseg.evaluate.evaluation import Case, Predictor, cases, evaluate, thresholds
from lesionseg.evaluate.members import compare_members
from lesionseg.evaluate.split_report import SplitReport, compared
from lesionseg.evaluate.tables import write_tables
from lesionseg.formats import manifest
from lesionseg.formats.processed import open_folders
from lesionseg.inference.postprocess import Cleaning
from lesionseg.networks import weights
from lesionseg.networks.ensemble import Ensemble

RAW, PROCESSED, HELD_OUT = Path("data/raw"), Path("data/processed"), Path("data/held_out")
WEIGHTS = Path("models/segmentation/weights.safetensors")
EVALUATION, SUBMISSION = Path("data/evaluation"), Path("data/submission")
METRICS, PLOTS = Path("metrics"), Path("plots")


class Parameters(Group):
    threshold: float = Field(gt=0, lt=1)
    threshold_from: Literal["fixed", "train", "val"]
    opening: int = Field(ge=0, le=64)
    keep_largest: bool
    fill_holes: bool
    refinement: Literal["none", "guided_filter"]
    test_time_augmentation: Literal["none", "flips", "flips_rotations"]
    submission: bool
    bootstrap_samples: int = Field(ge=100, le=100_000)
    seed: int = Field(ge=0)


def main() -> None:
    parameters, runtime = load("evaluate", Parameters), load("runtime", Runtime)
    data = open_folders(PROCESSED, HELD_OUT)
    held_out = cases(data.samples, {pair.id: RAW / pair.mask for pair in manifest.read(RAW)})
    model, metadata = weights.load(WEIGHTS)
    device = choose_device(runtime.device)
    workers = worker_count(runtime.workers)
    predictor = Predictor(model, device, parameters.test_time_augmentation, parameters.refinement, workers)
    cut = thresholds(
        parameters.threshold_from,
        parameters.threshold,
        held_out,
        lambda split: predictor.sweep(data.images, data.masks, data.rows(split)),
    )
    cleaning = Cleaning(parameters.opening, parameters.keep_largest, parameters.fill_holes)
    submission.start(SUBMISSION)
    keep = partial(submission.write_mask, SUBMISSION) if parameters.submission else None
    with predictor.saved(data.images, [case.row for case in held_out], EVALUATION / "probabilities.npy") as maps:
        reports = evaluate(held_out, *maps, data.masks, cut, cleaning, EVALUATION / "predicted.npy", keep, workers)
        if isinstance(model, Ensemble):
            values = {split: threshold.value for split, threshold in cut.items()}
            write_json(EVALUATION / "members.json", compare_members(model, maps[1], data, held_out, values, device))
    environment = {"device": describe_device(device), "trained_in": metadata.get("precision")}
    write(held_out, reports, parameters, environment)


def write(
    held_out: list[Case], reports: dict[str, SplitReport], parameters: Parameters, environment: dict[str, str]
) -> None:
    """Write the metrics, the tables, and which image each prediction belongs to."""
    bootstrap = (parameters.bootstrap_samples, parameters.seed)
    write_csv(
        EVALUATION / "samples.csv",
        ("id", "split", "index"),
        ({"id": case.id, "split": case.split, "index": case.row} for case in held_out),
    )
    write_tables(PLOTS, reports)
    scores = {split: one.headline(*bootstrap) for split, one in reports.items()}
    write_json(EVALUATION / "scores.json", scores)
    write_json(EVALUATION / "breakdowns.json", {split: one.detail(*bootstrap) for split, one in reports.items()})
    write_json(
        METRICS / "evaluation.json",
        {split: compared(figures) for split, figures in scores.items()} | {"ran": environment},
    )


if __name__ == "__main__":
    run_stage("evaluate", main)
