"""A trained network as a function from a photograph to its mask, by the very steps that the evaluation scores."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from torch import device as Device
from torch import nn

from lesionseg.common.errors import InputError
from lesionseg.images.decoding import read_rgb
from lesionseg.inference import native
from lesionseg.inference.postprocess import Cleaning, imprint
from lesionseg.inference.prediction import predict
from lesionseg.networks import weights

BATCH = 8  # photographs at the network's size held at a time


@dataclass(frozen=True)
class Settings:
    """What is done after the network; named as in the `evaluate` group of params.yaml, where each is explained."""

    threshold: float = 0.5  # in (0, 1), against probabilities of 8 bits
    test_time_augmentation: str = "none"
    cleaning: Cleaning = field(default_factory=Cleaning)

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold: found {self.threshold}, expected a number between 0 and 1, without them")

    @property
    def level(self) -> int:
        """The lowest 8-bit probability that counts as lesion."""
        return max(1, int(np.ceil(round(self.threshold * 255, 9))))


@dataclass(frozen=True)
class Segmentation:
    """What the network says of one photograph, at its native size (height, width)."""

    mask: np.ndarray  # uint8, 1 for lesion
    probabilities: np.ndarray  # uint8, 255 stands for 1


@dataclass(frozen=True)
class Model:
    """A network in evaluation mode, the size it was trained at, and what is done after it."""

    network: nn.Module
    image_size: int  # pixels, height and width
    settings: Settings
    device: Device

    def predict(self, image: str | Path) -> np.ndarray:
        """The mask of one photograph, uint8 (height, width) of 0 and 1 at its native size, upright.

        Raises ImageError where the file cannot be read as an image.
        """
        [segmentation] = self.segment([read_rgb(image, self.image_size)])
        return segmentation.mask

    def segment(self, photographs: Iterable[tuple[np.ndarray, tuple[int, int]]]) -> Iterator[Segmentation]:
        """Yield the segmentation of each photograph in order, a batch at a time.

        A photograph is what `read_rgb(path, image_size)` gives: uint8 (S, S, 3), and its native (width, height).
        """
        photographs = iter(photographs)
        while batch := list(islice(photographs, BATCH)):
            images = np.stack([pixels for pixels, _ in batch])
            views = self.settings.test_time_augmentation
            predictions = predict(self.network, images, range(len(batch)), self.device, views)
            for (_, (width, height)), prediction in zip(batch, predictions, strict=True):
                yield self._finish(prediction.averaged, (height, width))

    def _finish(self, probabilities: np.ndarray, shape: tuple[int, int]) -> Segmentation:
        """Clean at the network's resolution, then enlarge, as evaluate/measurement.py does before it scores."""
        level, cleaning = self.settings.level, self.settings.cleaning
        if cleaning:
            cleaned = cleaning((probabilities >= level).view(np.uint8))
            probabilities = imprint(probabilities, cleaned, level)
        at_native = native.resize(probabilities, shape)
        return Segmentation((at_native >= level).view(np.uint8), at_native)


def load(path: str | Path, settings: Settings | None = None, device: str | Device = "cpu") -> Model:
    """Load the network that the train stage saved at `path`; InputError where it is no such file."""
    network, metadata = weights.load(path, device)
    size = metadata.get("image_size")
    if not isinstance(size, int):
        raise InputError(f"{path}: its metadata lacks image_size; train again with this version")
    return Model(network, size, settings or Settings(), Device(device))
