"""Whether an exported graph gives the same masks as the model."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from lesionseg.common.errors import InputError
from lesionseg.images.decoding import ImageError, read_rgb
from lesionseg.predict.model import Model, shrunk

MOST = 5e-3  # share of a mask's pixels that may differ, as every program rounds single precision differently
SIDES = ((3.1, 4.2), (1.7, 1.2), (0.7, 0.6))  # height and width of the drawn pictures / the network's input size


def agreement(content: bytes, model: Model, files: Sequence[Path] = ()) -> str:
    """Run the ONNX file `content` and `model` on drawn pictures and on `files`; return a line on how well they agree.

    Raises InputError if a mask differs in more than `MOST` of its pixels, or a file cannot be read.
    """
    if find_spec("onnxruntime") is None:
        return "not checked against torch: onnxruntime is not installed (pip install 'lesionseg[export]')"
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    worst, pictures = 0.0, 0
    for name, picture in _pictures(model.image_size, files):
        [segmentation] = model.segment([shrunk(picture, model.image_size)])
        mask = session.run(["mask"], {"photograph": picture})[0]
        share = float((mask != segmentation.mask).mean())
        if share > MOST:
            raise InputError(f"{name}: the exported mask differs from the model's in {share:.2%} of the pixels")
        worst, pictures = max(worst, share), pictures + 1
    version = onnxruntime.__version__
    return f"checked with onnxruntime {version}: at most {worst:.4%} of the pixels differ in any of {pictures} masks"


def _pictures(size: int, files: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Blurred noise in several shapes, larger and smaller than the network's input, then the files: uint8 RGB."""
    random = np.random.default_rng(0)
    for tall, wide in SIDES:
        coarse = Image.fromarray(random.integers(0, 256, (7, 7, 3), np.uint8))
        drawn = coarse.resize((round(wide * size), round(tall * size)), Image.Resampling.BICUBIC)
        yield f"a drawn picture of {drawn.width}×{drawn.height}", np.asarray(drawn)
    for path in files:
        try:
            yield str(path), read_rgb(path)[0]
        except ImageError as error:
            raise InputError(f"{path}: {error}") from None
