"""The exported ONNX file compared with lesionseg on real photographs: CPU seconds each, and agreement of the masks.

    python benchmarks/onnx_file.py MODEL PHOTOGRAPH_OR_FOLDER...

CPU seconds, so that other load on the machine does not count, with one thread and including decoding. As in real use,
lesionseg decodes a large JPEG at a fraction of its size, and the ONNX file takes the whole decoded photograph.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import lesionseg
from lesionseg.export.graph import build_graph
from lesionseg.images.decoding import read_rgb


def main(model_path: str, named: list[str]) -> None:
    torch.set_num_threads(1)
    paths = [Path(name) for name in named]
    photographs = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    model = lesionseg.load(model_path, "cpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    content = build_graph(model).SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def exported(path: Path) -> np.ndarray:
        return session.run(["mask"], {"photograph": read_rgb(path)[0]})[0]

    ways: dict[str, Callable[[], list[np.ndarray]]] = {
        "lesionseg, all at once": lambda: model.predict(photographs),
        "lesionseg, one by one": lambda: [model.predict(path) for path in photographs],
        "onnxruntime, one by one": lambda: [exported(path) for path in photographs],
    }
    exported(photographs[0])  # the first run allocates
    masks, seconds = {}, {}
    for way, predicted in ways.items():
        start = time.process_time()
        masks[way] = predicted()
        seconds[way] = (time.process_time() - start) / len(photographs)
    whole = [model.predict(read_rgb(path)[0]) for path in photographs]
    for way in ways:
        agreement = min(iou(*pair) for pair in zip(masks[way], whole, strict=True))
        print(f"{way:<25} {seconds[way]:.3f} s; IoU with lesionseg on whole photographs at least {agreement:.4f}")


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of two masks, 1 for two empty ones."""
    return float((one & other).sum() / union) if (union := (one | other).sum()) else 1.0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python benchmarks/onnx_file.py MODEL PHOTOGRAPH_OR_FOLDER...")
    main(sys.argv[1], sys.argv[2:])
