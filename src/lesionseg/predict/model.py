"""A trained network as a function from a photograph to its mask, by the same steps that the evaluation scores."""

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack, overload

import numpy as np
import torch
from PIL import Image
from torch import nn

from lesionseg.common.errors import InputError
from lesionseg.common.hardware import choose_device
from lesionseg.formats import weights_file
from lesionseg.images.decoding import Decoded, read_rgb, rgb
from lesionseg.images.header import SIDEWAYS, orientation
from lesionseg.inference import native
from lesionseg.inference.postprocess import cleaned
from lesionseg.inference.prediction import stream
from lesionseg.inference.refine import REFINERS
from lesionseg.inference.settings import Settings
from lesionseg.networks import weights

FILES = (
    weights_file.MODEL_FILE,
    weights_file.TRAINED_FILE,
)  # what a model's folder may hold; the whole model is preferred

Photograph = str | Path | np.ndarray | Image.Image
Shrunk = tuple[np.ndarray, tuple[int, int]]  # uint8 (S, S, 3) RGB at the network's size, native (width, height)


class Changes(TypedDict, total=False):
    """Settings that replace those of the model file; see `Settings`."""

    threshold: float
    test_time_augmentation: str
    refinement: str
    opening: int
    keep_largest: bool
    fill_holes: bool


@dataclass(frozen=True)
class Segmentation:
    """The result for one photograph, at its native size (height, width)."""

    mask: np.ndarray  # uint8, 1 for lesion
    probabilities: np.ndarray  # uint8, 255 stands for 1


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, its input size, and the settings of what follows it."""

    network: nn.Module
    image_size: int  # pixels, height and width
    settings: Settings
    device: torch.device
    path: Path  # of the file it was read from
    evaluated: bool  # whether the file has the settings it was evaluated with; if not, they are the defaults

    @property
    def sha256(self) -> str:
        """Of the model file, hexadecimal."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @overload
    def predict(self, image: Photograph) -> np.ndarray: ...  # type: ignore[overload-overlap]  # a str is a sequence too
    @overload
    def predict(self, image: Sequence[Photograph]) -> list[np.ndarray]: ...
    def predict(self, image: Photograph | Sequence[Photograph]) -> np.ndarray | list[np.ndarray]:
        """The mask of a photograph, uint8 (height, width) at its native size, upright: 1 for lesion, 0 for the rest.

        `image` is a file, an array uint8 (height, width, 3) RGB, a Pillow image, or a list of these, which gives a
        list of masks and is processed a batch at a time. Files are decoded as in the pipeline, a JPEG no larger than
        needed, so an array of the same photograph can give a slightly different outline.

        Raises ImageError if a file cannot be read as an image, InputError if an array has another shape or dtype.
        """
        if isinstance(image, str | Path | np.ndarray | Image.Image):
            return self.predict([image])[0]
        return [each.mask for each in self.segment(shrunk(each, self.image_size) for each in image)]

    def segment(self, photographs: Iterable[Shrunk]) -> Iterator[Segmentation]:
        """Yield the segmentation of each photograph in order, a batch at a time.

        Photographs are as `shrunk(image, image_size)` returns them.
        """
        return (self.finish(*each) for each in self.probabilities(photographs))

    def probabilities(self, photographs: Iterable[Shrunk]) -> Iterator[tuple[np.ndarray, Shrunk]]:
        """Yield the network's 8-bit probabilities (S, S) of each photograph with the photograph, for `finish`."""
        held: deque[Shrunk] = deque()  # those that the network still works on

        def images() -> Iterator[np.ndarray]:
            for photograph in photographs:
                held.append(photograph)
                yield photograph[0]

        for prediction in stream(self.network, images(), self.device, self.settings.test_time_augmentation):
            yield prediction.averaged, held.popleft()

    def finish(self, probabilities: np.ndarray, photograph: Shrunk) -> Segmentation:
        """Refine and clean at the network's resolution, then enlarge, as the evaluation does before scoring."""
        pixels, (width, height) = photograph
        level = self.settings.level
        if refine := REFINERS[self.settings.refinement]:
            probabilities = refine(probabilities, pixels)
        _, probabilities = cleaned(probabilities, level, self.settings.cleaning)
        at_native = native.resize(probabilities, (height, width))
        return Segmentation((at_native >= level).view(np.uint8), at_native)


def shrunk(image: Photograph, size: int) -> Shrunk:
    """A photograph at the network's size, upright, and its native (width, height).

    Raises ImageError if a file cannot be read as an image, InputError if an array has another shape or dtype.
    """
    if isinstance(image, str | Path):
        return read_rgb(image, size)
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"image: found {image.dtype} {image.shape}, expected uint8 (height, width, 3), RGB")
        image = Image.fromarray(np.ascontiguousarray(image))
    if not isinstance(image, Image.Image):
        raise InputError(f"image: found {type(image).__name__}, expected a path, an array or a Pillow image")
    image.load()
    turn = 1 if image.format == "TIFF" else orientation(image)  # Pillow turns a TIFF while loading
    width, height = image.size[::-1] if turn in SIDEWAYS else image.size
    return rgb(Decoded(image, width, height, None, turn), size), (width, height)


def load(path: str | Path, device: str | torch.device = "auto", **changes: Unpack[Changes]) -> Model:
    """Load a model that the evaluate stage wrote, from its folder or file, with the settings it was evaluated with.

    `device` is auto (CUDA where there is a GPU), cpu, cuda or cuda:<index>. `changes` replace single settings:
    `load(path, threshold=0.4)`. The weights of the train stage can be loaded too, with default settings.

    Raises InputError if `path` is no model of this project, or a change is out of range.
    """
    path = model_file(Path(path))
    device = choose_device(device, called="device") if isinstance(device, str) else device
    network, metadata = weights.load(path, device)
    size = metadata.get("image_size")
    if type(size) is not int or not 32 <= size <= 1024 or size % 16:
        raise InputError(f"{path}: image_size: found {str(size)[:20]!r}, expected 32 to 1024 pixels; train it again")
    evaluated = "settings" in metadata
    try:
        settings = Settings.of(metadata["settings"]) if evaluated else Settings()
    except InputError as error:
        raise InputError(
            f"{path}: {problem}; was it written by another version?" for problem in error.problems
        ) from None
    return Model(network, size, replace(settings, **changes), device, path, evaluated)


def model_file(path: Path) -> Path:
    """The model file at `path`, or in the folder `path`. Raises InputError if there is none."""
    if not path.exists():
        raise InputError(f"{path}: not found; make it with `dvc repro` or `dvc pull`, or name another model's folder")
    if not path.is_dir():
        return path
    for name in FILES:
        if (path / name).is_file():
            return path / name
    raise InputError(f"{path}: holds neither {' nor '.join(FILES)}; name the folder or the file of a model")
