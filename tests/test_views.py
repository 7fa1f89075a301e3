"""Zoomed, shifted, turned and mirrored copies are found; what only looks alike is not."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lesionseg.images.decoding import read_rgb
from lesionseg.preprocess import views
from test_duplicates import jpeg, skin

REAL = Path(os.environ.get("LESIONSEG_REAL_DATA", Path(__file__).parents[2] / "shared/data"))


def described(images: list[Image.Image]) -> np.ndarray:
    return np.stack([views.describe(np.asarray(image)) for image in images])


@pytest.fixture(scope="module")
def others() -> list[Image.Image]:
    return [skin(seed) for seed in range(8)]


def part(image: Image.Image, left: float, top: float, zoom: float) -> Image.Image:
    """The part of an image that begins at (left, top), of 1, at its size."""
    size = image.width
    box = (left * size, top * size, (left + 1 / zoom) * size, (top + 1 / zoom) * size)
    return image.resize(image.size, Image.Resampling.BICUBIC, box=box)


COPIES = {
    "as it is": lambda image: image,
    **{turn.name: lambda image, turn=turn: image.transpose(turn) for turn in Image.Transpose},
    "zoomed by 1.3": lambda image: part(image, 0.115, 0.115, 1.3),
    "zoomed by 1.3 at a corner": lambda image: part(image, 0.23, 0, 1.3),
    "shifted by a tenth": lambda image: part(image, 0.1, 0, 1 / 0.9),
    "zoomed, mirrored, turned, compressed": lambda image: jpeg(
        part(image, 0.1, 0.2, 1.3).transpose(Image.Transpose.FLIP_LEFT_RIGHT).transpose(Image.Transpose.ROTATE_90)
    ),
    "brighter": lambda image: image.point(lambda value: value * 1.15),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_found_among_others(others, change):
    ((first, second, correlation),) = views.find_other_views(described([*others, COPIES[change](others[5])]), range(9))
    assert (first, second) == (5, 8)
    assert views.CONFIRM <= correlation <= 1.0001


def framed(image: Image.Image) -> Image.Image:
    """As seen through a lens with a dark edge and a ruler."""
    mask = Image.new("L", image.size)
    ImageDraw.Draw(mask).ellipse((4, 4, image.width - 4, image.height - 4), 255)
    seen = Image.composite(image, Image.new("RGB", image.size), mask)
    draw = ImageDraw.Draw(seen)
    for tick in range(40, 216, 8):
        draw.line((tick, 225, tick, 240 if tick % 40 else 246), "black", 2)
    return seen


def test_what_only_looks_alike_is_not_taken_for_one_picture(others):
    """Lesions behind one lens with one ruler, and plain skin."""
    random = np.random.default_rng(0)
    lesions = [part(image, *random.uniform(0, 0.3, 2), 1.4) for image in others]
    plain = [Image.new("RGB", (256, 256), colour) for colour in ("black", "pink", "pink")]
    images = [*lesions, *map(framed, lesions), *plain]
    found = {(first, second) for first, second, _ in views.find_other_views(described(images), range(len(images)))}
    assert found <= {(number, number + 8) for number in range(8)}, "with and without the lens it is one picture"


def test_only_the_images_asked_for_are_compared(others):
    rows = described([others[0], others[1], others[0], others[1]])
    assert [match[:2] for match in views.find_other_views(rows, [0, 1, 2])] == [(0, 2)]
    assert views.find_other_views(rows, []) == []
    assert views.find_other_views(rows[:0], []) == []


def test_what_is_found_does_not_depend_on_the_block(others, monkeypatch):
    rows = described([*others, *(part(image, 0.1, 0.1, 1.2) for image in others)])
    whole = views.find_other_views(rows, range(16))
    monkeypatch.setattr(views, "BLOCK", 3)
    assert len(whole) >= 7
    assert views.find_other_views(rows, range(16)) == whole


def test_of_many_copies_each_has_its_best(others, monkeypatch):
    """The best few of each image are compared, and still all copies are joined."""
    monkeypatch.setattr(views, "BEST", 2)
    rows = described([part(others[0], number / 50, 0, 1.25) for number in range(10)])
    linked = {image for match in views.find_other_views(rows, range(10)) for image in match[:2]}
    assert linked == set(range(10))


# Of the 1,000 crops, each pair looked at: 14 lesions that were photographed, turned, mirrored or processed twice.
TWICE = {
    ("ISIC_0000171", "ISIC_0015124"), ("ISIC_0000179", "ISIC_0014765"), ("ISIC_0000191", "ISIC_0014907"),
    ("ISIC_0000196", "ISIC_0014957"), ("ISIC_0000198", "ISIC_0014667"), ("ISIC_0000209", "ISIC_0015016"),
    ("ISIC_0000213", "ISIC_0015201"), ("ISIC_0000228", "ISIC_0014964"), ("ISIC_0000396", "ISIC_0009880"),
    ("ISIC_0000453", "ISIC_0011097"), ("ISIC_0000519", "ISIC_0011295"), ("ISIC_0012222", "ISIC_0016003"),
    ("ISIC_0012887", "ISIC_0012989"), ("ISIC_0000212", "ISIC_0014927"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_the_known_views_of_isic_2018_and_nothing_else():
    paths = sorted((REAL / "isic2018-crop512/images").glob("*.jpg"))
    rows = np.stack([views.describe(read_rgb(path, 256)[0]) for path in paths])
    found = {
        (paths[first].stem, paths[second].stem) for first, second, _ in views.find_other_views(rows, range(len(rows)))
    }
    assert found == TWICE
