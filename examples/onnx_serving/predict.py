"""The mask of a photograph from an exported model, with onnxruntime, Pillow and NumPy alone: no torch, no lesionseg.

    lesionseg export --output lesion.onnx          # where lesionseg is installed, once
    pip install onnxruntime pillow numpy           # where it is served
    python predict.py lesion.onnx photograph.jpg mask.png

Resizing, views, threshold and cleaning are inside the file. What is left is to decode the photograph upright.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def decoded(path: str) -> np.ndarray:
    """The photograph as uint8 (height, width, 3) RGB, turned as its EXIF data says."""
    with Image.open(path, formats=("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP")) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def main(model: str, photograph: str, target: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=onnxruntime.get_available_providers())
    [mask] = session.run(["mask"], {"photograph": decoded(photograph)})  # uint8 (height, width), 1 for lesion
    Image.fromarray(mask * np.uint8(255)).save(target)
    settings = json.loads(session.get_modelmeta().custom_metadata_map["settings"])
    print(f"{target}: {mask.mean():.1%} of the photograph is lesion, at threshold {settings['threshold']}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python predict.py MODEL.onnx PHOTOGRAPH MASK.png")
    main(*sys.argv[1:])
