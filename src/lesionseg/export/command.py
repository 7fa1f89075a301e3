"""`lesionseg export --output FILE.onnx`: its options, shown without loading torch, and what it does."""

import argparse
from pathlib import Path

from lesionseg.common.errors import InputError
from lesionseg.common.files import atomic

MODEL = "models/lesion-segmentation"
DESCRIPTION = """\
Write a model as one ONNX file that takes a decoded photograph of any size, uint8 (height, width, 3) RGB, and returns
its mask, uint8 (height, width) of 0 and 1. Resizing, views, threshold and cleaning are inside, as the model was
evaluated.
If onnxruntime is installed, the file is checked against torch before it is written."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.onnx", help="the file to write")
    parser.add_argument("--model", type=Path, default=Path(MODEL), help=f"a model's folder or file; default: {MODEL}")
    parser.add_argument("--format", choices=["onnx"], default="onnx", help="of the file; default: onnx")
    parser.add_argument("--probabilities", action="store_true", help="also return 8-bit probabilities, uint8")
    parser.add_argument(
        "--check", nargs="+", type=Path, metavar="PHOTOGRAPH", default=[], help="more photographs to check it on"
    )


def run(options: argparse.Namespace) -> None:
    """Export. Raises InputError if there is no such model, or the file does not give the model's masks."""
    if options.output.suffix != ".onnx":
        raise InputError(f"--output: found {options.output}, expected a name ending in .onnx")
    from lesionseg.export.agreement import agreement
    from lesionseg.export.graph import build_graph
    from lesionseg.predict.model import load

    model = load(options.model, "cpu")
    content = build_graph(model, options.probabilities).SerializeToString()
    checked = agreement(content, model, options.check)
    with atomic(options.output) as temporary:
        temporary.write_bytes(content)
    print(f"{options.output}: {len(content) / 1e6:.1f} MB, {model.image_size}×{model.image_size} pixels inside")
    print("settings:", ", ".join(f"{name} {value}" for name, value in model.settings.as_dict().items()))
    print(checked)
