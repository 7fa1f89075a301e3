"""The options of `lesionseg predict PHOTOGRAPH_OR_FOLDER... --output DIR`, shown without loading torch."""

import argparse
from pathlib import Path

from lesionseg.inference.settings import REFINEMENTS, VIEWS

MODEL = "models/lesion-segmentation"
DESCRIPTION = """\
Write a mask at native size for every photograph, and a table of the lesions. The model is used with the settings it was
evaluated with (size, threshold, views, cleaning), which its file holds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("photographs", nargs="+", type=Path, metavar="PHOTOGRAPH_OR_FOLDER")
    parser.add_argument("--output", type=Path, required=True, help="directory for masks, lesions.csv and run.json")
    parser.add_argument("--model", type=Path, default=Path(MODEL), help=f"a model's folder or file; default: {MODEL}")
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:<index>")
    parser.add_argument("--workers", type=int, help="threads to decode with, and to write with; default: one per core")
    outputs = parser.add_argument_group("outputs", "besides masks, lesions.csv and run.json; docs/prediction.md")
    outputs.add_argument("--overlay", action="store_true", help="the photograph with the lesion's outline, JPEG")
    outputs.add_argument(
        "--probabilities", nargs="?", const="png", choices=("png", "npy"), help="8-bit PNG, or float32 from 0 to 1"
    )
    outputs.add_argument("--outlines", action="store_true", help="one GeoJSON per photograph for QuPath, one COCO JSON")
    outputs.add_argument("--truth", type=Path, metavar="FOLDER", help="score against its masks: <id>_segmentation.png")
    settings = parser.add_argument_group("settings", "in place of those in the model file")
    settings.add_argument("--threshold", type=float, help="pixels at or above this probability count as lesion")
    settings.add_argument("--test-time-augmentation", choices=list(VIEWS), help="views to average")
    settings.add_argument("--refinement", choices=REFINEMENTS, help="of the outline, by the photograph's colours")
    settings.add_argument(
        "--opening", type=int, metavar="RADIUS", help="remove specks; in pixels at the network's size"
    )
    settings.add_argument("--keep-largest", action=argparse.BooleanOptionalAction, help="only the largest component")
    settings.add_argument(
        "--fill-holes", action=argparse.BooleanOptionalAction, help="count enclosed background as lesion"
    )


def run(options: argparse.Namespace) -> None:
    """Predict. Raises InputError for what could not be predicted, after the rest is done."""
    from lesionseg.predict import command

    command.run(options)
