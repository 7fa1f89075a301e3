"""`lesionseg predict PHOTOGRAPH_OR_FOLDER... --output DIR`: its options. They are shown without torch."""

import argparse
from pathlib import Path

from lesionseg.inference.settings import REFINEMENTS, VIEWS

MODEL = "models/lesion-segmentation"
DESCRIPTION = """\
Write a mask at native size for every photograph, and a table of the lesions. How the model was evaluated (size,
threshold, views, cleaning) is read from its file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("photographs", nargs="+", type=Path, metavar="PHOTOGRAPH_OR_FOLDER")
    parser.add_argument("--output", type=Path, required=True, help="directory for masks, lesions.csv and run.json")
    parser.add_argument("--model", type=Path, default=Path(MODEL), help=f"a model's folder or file; default: {MODEL}")
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:<index>")
    parser.add_argument("--workers", type=int, help="threads that decode, and that write; default: one a core")
    outputs = parser.add_argument_group("outputs", "besides masks, lesions.csv and run.json; docs/prediction.md")
    outputs.add_argument("--overlay", action="store_true", help="photograph with the outline of the lesion, JPEG")
    outputs.add_argument(
        "--probabilities", nargs="?", const="png", choices=("png", "npy"), help="of 8 bits, or float32 of 0 to 1"
    )
    outputs.add_argument("--outlines", action="store_true", help="GeoJSON for QuPath a photograph, COCO JSON for all")
    outputs.add_argument("--truth", type=Path, metavar="FOLDER", help="score against its masks: <id>_segmentation.png")
    settings = parser.add_argument_group("settings", "other than those the model was evaluated with")
    settings.add_argument("--threshold", type=float, help="pixels at or above this probability count as lesion")
    settings.add_argument("--test-time-augmentation", choices=list(VIEWS), help="views that are averaged")
    settings.add_argument("--refinement", choices=REFINEMENTS, help="by the colours of the photograph")
    settings.add_argument("--opening", type=int, metavar="RADIUS", help="remove specks: pixels at the network's size")
    settings.add_argument("--keep-largest", action=argparse.BooleanOptionalAction, help="only the largest component")
    settings.add_argument("--fill-holes", action=argparse.BooleanOptionalAction, help="enclosed background is lesion")


def run(options: argparse.Namespace) -> None:
    """Predict; InputError for what could not be, after the rest is done."""
    from lesionseg.predict import command

    command.run(options)
