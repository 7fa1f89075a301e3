"""Score the network on the images it was not trained on, at its own resolution and at native size."""

from pathlib import Path
from typing import Annotated, Literal

import checkout  # noqa: F401

from torch import nn

from lesionseg.common.files import replaced, write_csv, write_json
from lesionseg.common.hardware import choose_device, describe_device
from lesionseg.common.parallel import worker_count
from lesionseg.common.parameters import Field, Group, Runtime, load, one_of
from lesionseg.common.stage import run_stage
from lesionseg.evaluate import card, submission, worst
from lesionseg.evaluate.evaluation import Outputs, Predictor, cases, evaluate, thresholds, used
from lesionseg.evaluate.image_metrics import labels
from lesionseg.evaluate.members import compare_members
from lesionseg.evaluate.split_scores import Setting, chosen_by_val, compared
from lesionseg.evaluate.tables import write_tables
from lesionseg.formats import manifest, metadata, notices, weights_file
from lesionseg.formats.evaluation_tables import SAMPLES
from lesionseg.formats.processed import open_folders
from lesionseg.inference.prediction import PRECISION, package_versions
from lesionseg.inference.settings import LARGEST_OPENING, REFINEMENTS, VIEWS, Settings
from lesionseg.networks import weights
from lesionseg.networks.ensemble import Ensemble
from lesionseg.scoring.bootstrap import Resampling

RAW, PROCESSED, HELD_OUT = Path("data/raw"), Path("data/processed"), Path("data/held_out")
WEIGHTS = Path("models/trained") / weights_file.TRAINED_FILE
MODEL = Path("models/lesion-segmentation")  # the model to use: the weights with the settings they were evaluated with
EVALUATION, SUBMISSION = Path("data/evaluation"), Path("data/submission")
METRICS, PLOTS = Path("metrics"), Path("plots")

AFTER = ("test_time_augmentation", "refinement", "opening", "keep_largest", "fill_holes")  # the network, in this order


class Parameters(Group):
    threshold: float = Field(gt=0, lt=1)
    threshold_from: Literal["fixed", "train", "val"]
    opening: int = Field(ge=0, le=LARGEST_OPENING)
    keep_largest: bool
    fill_holes: bool
    refinement: Annotated[str, one_of(REFINEMENTS)]
    test_time_augmentation: Annotated[str, one_of(VIEWS)]
    submission: bool
    bootstrap_samples: int = Field(ge=100, le=100_000)
    seed: int = Field(ge=0)


def main() -> None:
    parameters, runtime = load("evaluate", Parameters), load("runtime", Runtime)
    data = open_folders(PROCESSED, HELD_OUT)
    pairs = manifest.read(RAW)
    held_out = cases(data.samples, {pair.id: RAW / pair.mask for pair in pairs})
    known = metadata.read(RAW).rows
    model, said = weights.load(WEIGHTS)
    device = choose_device(runtime.device)
    workers = worker_count(runtime.workers)
    predictor = Predictor(model, device, parameters.test_time_augmentation, parameters.refinement, workers)
    chosen = thresholds(
        parameters.threshold_from,
        parameters.threshold,
        held_out,
        lambda split: predictor.sweep(data.images, data.masks, data.rows(split)),
    )
    after = Settings(used(chosen).value, **{name: getattr(parameters, name) for name in AFTER})
    settings = {
        split: Setting(*threshold, after.cleaning, predictor.changes, chosen_by_val(said) if split == "val" else None)
        for split, threshold in chosen.items()
    }
    submission.start(SUBMISSION)
    outputs = Outputs(EVALUATION / "predicted.npy", SUBMISSION if parameters.submission else None)
    with predictor.saved(data.images, [case.row for case in held_out], EVALUATION / "probabilities.npy") as maps:
        scored = evaluate(held_out, data, maps, settings, outputs, workers)
        members = None
        if isinstance(model, Ensemble):
            values = {split: threshold.value for split, threshold in chosen.items()}
            members = compare_members(model, maps.plain, data, held_out, values, device)
            write_json(EVALUATION / "members.json", members)
    write_csv(
        EVALUATION / "samples.csv",
        SAMPLES,
        (dict(zip(SAMPLES, (case.id, case.split, case.row), strict=True)) for case in held_out),
    )
    write_tables(PLOTS, scored)
    resampling = Resampling(parameters.bootstrap_samples, parameters.seed)
    detail = {split: one.detail(resampling, known) for split, one in scored.items()}
    ran = {"device": describe_device(device), "predicted_in": PRECISION, "trained_in": said.get("precision")}
    write_json(EVALUATION / "detail.json", {"splits": detail, "labels": labels(), "ran": ran})
    write_json(METRICS / "evaluation.json", {split: compared(one) for split, one in detail.items()} | {"ran": ran})

    evaluated = card.Evaluated(
        trained=said | {"image_size": data.images.shape[1]},
        parameters=sum(each.numel() for each in model.parameters()),
        settings=after,
        splits=detail,
        ran=ran,
        versions=package_versions(),
        samples=data.samples,
        pairs=pairs,
        notices=notices.read(RAW),
        members=members,
        worst=worst.worst(held_out, scored),
    )
    write_model(model, evaluated, worst.Pictures(held_out, data, outputs.predicted))


def write_model(model: nn.Module, evaluated: card.Evaluated, pictures: worst.Pictures) -> None:
    """Write the model to use: its weights with the settings they were evaluated with, its card and pictures."""
    with replaced(MODEL) as folder:
        metadata = evaluated.trained | {"settings": evaluated.settings.as_dict()}
        weights.save(folder / weights_file.MODEL_FILE, model.state_dict(), metadata)
        card.write(folder, evaluated)
        if shown := evaluated.shown():
            (folder / card.PICTURE).write_bytes(pictures.sheet(shown.values()))


if __name__ == "__main__":
    run_stage("evaluate", main)
