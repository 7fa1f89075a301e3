"""Charts as palette PNG files."""

import io

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lesionseg.visualize import palette
from lesionseg.visualize.image_file import png_bytes


def busy_figure() -> Figure:
    """Thousands of colours, and one pixel of the colour of the truth."""
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    pixels[40, 40] = palette.hex_to_rgb(palette.TRUTH)
    figure = Figure(figsize=(1, 1), dpi=100, facecolor="white")
    figure.figimage(pixels, 10, 10, origin="upper")
    return figure


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("colours", [32, 64, 256])
def test_few_colours_and_those_with_a_meaning_are_exact(colours):
    picture = opened(png_bytes(busy_figure(), colours))
    assert picture.shape == (100, 100, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) <= colours
    assert tuple(picture[50, 50]) == palette.hex_to_rgb(palette.TRUTH)
    assert (picture[:10] == 255).all(), "white stays white"


def test_colours_asked_for_are_kept():
    figure = busy_figure()
    figure.figimage(np.full((2, 2, 3), (1, 254, 3), np.uint8), 0, 0)
    assert (opened(png_bytes(figure, 32, [(1, 254, 3)]))[-2:, :2] == (1, 254, 3)).all()


def test_the_nearest_colour_of_the_palette_is_taken():
    exact = opened(png_bytes(busy_figure(), 256)).astype(int)
    figure = busy_figure()
    source = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    source[40, 40] = palette.hex_to_rgb(palette.TRUTH)
    table = np.unique(exact.reshape(-1, 3), axis=0)
    taken = np.linalg.norm(source.astype(int) - exact[10:90, 10:90], axis=-1)
    best = np.linalg.norm(source.astype(int)[:, :, None] - table, axis=-1).min(-1)
    np.testing.assert_allclose(taken, best)
    assert figure.dpi == 100


def test_the_bytes_depend_on_the_picture_alone():
    with matplotlib.rc_context({"savefig.dpi": 300, "figure.facecolor": "red", "text.hinting": "none"}):
        changed = png_bytes(busy_figure())
    assert changed == png_bytes(busy_figure())
    assert b"tEXt" not in changed
    assert b"tIME" not in changed
