"""Random changes to image and mask together, a pure function of (seed, epoch, sample).

albumentations draws from generators that live in the transforms, so that what an image gets depends on
which worker took it and what it took before. Here the generators are set anew for every sample: the number
of workers, their order or a resumed run change nothing, and each epoch differs.
"""

import os
import random
from typing import Annotated

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else albumentations asks its server on import

import albumentations
import cv2
import numpy as np

from lesionseg.common.parameters import Group, one_of

# Workers are processes already; OpenCV's own threads in each would only compete for the cores. This is a
# setting of the whole process, made on import.
cv2.setNumThreads(0)

# What a strength other than `none` means (sources: docs/training-options.md). Lengths are shares of the side.
_SCALE_SHIFT = {  # range of scales, largest shift
    "light": ((0.9, 1.1), 0.05),
    "strong": ((0.7, 1.4), 0.1),
    "close_up": ((0.8, 1.8), 0.1),  # photographs from nearer, lesions that the edge cuts off
}
_ELASTIC = {"light": 0.01, "strong": 0.02}  # standard deviation of the displacement
_ELASTIC_SMOOTHNESS = 0.06  # standard deviation of the Gaussian that smooths it
_QUARTER_TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
_COLOUR = {"light": (0.1, 0.02), "strong": (0.3, 0.1)}  # ± brightness, contrast, saturation factors; ± hue, turns

ROTATIONS = ("none", "right_angles", "any")


class Augmentation(Group):
    """Which random changes are made: parameters of the same names in params.yaml.

    Flips are left-right and up-down, each in half of the samples. Rotations are by 0, 90, 180 or 270 degrees
    (`right_angles`: exact, no pixel is interpolated) or by any angle.
    """

    augment_flips: bool
    augment_rotations: Annotated[str, one_of(ROTATIONS)]
    augment_scale_shift: Annotated[str, one_of(("none", *_SCALE_SHIFT))]
    augment_elastic: Annotated[str, one_of(("none", *_ELASTIC))]
    augment_colour: Annotated[str, one_of(("none", *_COLOUR))]


class Augmenter:
    """Augments samples `size` pixels wide and high.

    With flips and right angles the eight symmetries of the square come equally often. What a free rotation,
    a smaller scale or a shift uncovers is filled by reflection, in image and mask alike. Not for use by
    several threads at once: give each its own.
    """

    def __init__(self, seed: int, size: int, augmentation: Augmentation):
        self.seed = seed
        transforms = []
        if augmentation.augment_flips:
            transforms += [albumentations.HorizontalFlip(p=0.5), albumentations.VerticalFlip(p=0.5)]
        if augmentation.augment_rotations == "right_angles":
            transforms.append(RightAngleRotation(p=1))
        if augmentation.augment_rotations == "any" or augmentation.augment_scale_shift != "none":
            transforms.append(_affine(augmentation.augment_rotations, augmentation.augment_scale_shift))
        if augmentation.augment_elastic != "none":
            transforms.append(_elastic(augmentation.augment_elastic, size))
        if augmentation.augment_colour != "none":
            transforms.append(_colour(augmentation.augment_colour))
        self._pipeline = albumentations.Compose(transforms)

    def __call__(self, image: np.ndarray, mask: np.ndarray, epoch: int, sample: int) -> tuple[np.ndarray, np.ndarray]:
        """Augment `image` uint8 (H, W, 3) and `mask` uint8 (H, W): the same shapes and dtypes, contiguous.

        `sample` is the image's index in the data set. The inputs are not written to, and a mask of 0 and 1
        stays one of 0 and 1.
        """
        # One stream for all transforms. Compose.set_random_seed would give each its own from the same seed, so
        # that both flips always came together, and costs three times as much.
        words = np.random.SeedSequence([self.seed, epoch, sample])
        self._pipeline.set_random_state(
            np.random.Generator(np.random.PCG64(words)),
            random.Random(int(words.generate_state(1, np.uint64)[0])),
        )
        augmented = self._pipeline(image=image, mask=mask)
        return augmented["image"], augmented["mask"]


class RightAngleRotation(albumentations.RandomRotate90):
    """RandomRotate90 by OpenCV: the same pixels in a tenth of the time of numpy's strided copy."""

    def apply(self, img: np.ndarray, factor: int, **params) -> np.ndarray:
        return img if factor == 0 else cv2.rotate(img, _QUARTER_TURNS[factor])


def _affine(rotations: str, scale_shift: str) -> albumentations.Affine:
    """Rotation, scale and shift as one warp: the image is interpolated once."""
    scale, shift = _SCALE_SHIFT.get(scale_shift, ((1.0, 1.0), 0.0))
    return albumentations.Affine(
        rotate=(-180, 180) if rotations == "any" else 0,
        scale=scale,
        keep_ratio=True,  # one scale for both axes
        balanced_scale=scale != (1.0, 1.0),  # as often smaller as larger, however uneven the range
        translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
        border_mode=cv2.BORDER_REFLECT_101,
        p=1,
    )


def _elastic(strength: str, size: int) -> albumentations.ElasticTransform:
    """Smooth random displacement of every pixel (Simard et al. 2003)."""
    sigma = max(1.0, _ELASTIC_SMOOTHNESS * size)  # albumentations takes no less than a pixel
    # uniform noise in [-1, 1] has the deviation 1/√3; the Gaussian divides it by 2·√π·sigma; alpha multiplies it
    alpha = _ELASTIC[strength] * size * np.sqrt(3) * 2 * np.sqrt(np.pi) * sigma
    return albumentations.ElasticTransform(
        alpha=float(alpha),
        sigma=sigma,
        noise_distribution="uniform",  # the default is divided by its largest value: weaker in larger images
        border_mode=cv2.BORDER_REFLECT_101,
        p=1,
    )


def _colour(strength: str) -> albumentations.ColorJitter:
    factor, hue = _COLOUR[strength]
    around_one = (1 - factor, 1 + factor)
    return albumentations.ColorJitter(
        brightness=around_one, contrast=around_one, saturation=around_one, hue=(-hue, hue), p=1
    )
