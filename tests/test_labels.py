"""Masks by named values and colours: what is lesion, what is background, what is left out."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from lesionseg.common.errors import InputError
from lesionseg.download.labels import Labels, parse, read
from lesionseg.images.decoding import ImageError, decode

LESION = np.hypot(*np.mgrid[-60:60, -70:90]) < 40
HAIR = np.zeros_like(LESION)
HAIR[5:9] = True
BORDER = np.asarray(Image.fromarray(LESION).convert("L").filter(ImageFilter.MaxFilter(7))) > 0
BORDER &= ~LESION


def values(lesion: int, hair: int = 0, border: int = 0, background: int = 0) -> np.ndarray:
    return np.select([LESION, HAIR, BORDER], [lesion, hair, border], background)


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def colours(lesion: tuple, hair: tuple, background: tuple) -> Image.Image:
    return Image.fromarray(np.select([LESION[..., None], HAIR[..., None]], [lesion, hair], background).astype(np.uint8))


def palette(indices: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


def written(path, image: Image.Image, **options):
    image.save(path, **options)
    return decode(path)


EXACT = {  # what it is -> (image, lesion, background, void)
    "one class of several": (lambda: grey(values(1, hair=2)), 1, None, None),
    "two classes": (lambda: grey(values(4, hair=2)), "4", "0+2", None),
    "lesion black": (lambda: grey(255 - values(255)), 0, None, None),
    "lesion black by name": (lambda: grey(255 - values(255)), "black", "white", None),
    "16 bits": (lambda: Image.fromarray(values(4095, hair=7).astype(np.uint16)), 4095, None, None),
    "32 bits": (lambda: Image.fromarray(values(70000, hair=7).astype(np.int32)), 70000, None, None),
    "1 bit": (lambda: Image.fromarray(~LESION), 0, None, None),
    "grey in RGB": (lambda: grey(values(1, hair=2)).convert("RGB"), 1, None, None),
    "index of a palette": (lambda: palette(values(1, hair=2), [0, 0, 0, 128, 0, 0, 0, 128, 0]), 1, None, None),
    "colour of a palette": (lambda: palette(values(0, 2, 1, 1), [255, 0, 0, 0, 0, 0, 0, 9, 0]), "red", None, None),
    "colour": (lambda: colours((250, 50, 83), (0, 255, 0), (0, 0, 0)), "#fa3253", None, None),
    "colours joined": (lambda: colours((250, 50, 83), (0, 255, 0), (0, 0, 0)), "#fa3253", "lime+black", None),
    "opaque": (lambda: Image.fromarray(np.dstack([np.zeros((*LESION.shape, 3)), LESION * 255]).astype(np.uint8)),
               "opaque", None, None),
    "transparent": (lambda: Image.fromarray(np.dstack([np.zeros((*LESION.shape, 3)), ~LESION * 255]).astype(np.uint8)),
                    "transparent", None, None),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_what_is_named_is_lesion_and_nothing_else(tmp_path, name):
    make, *given = EXACT[name]
    mask = read(written(tmp_path / "m.tif" if "32" in name else tmp_path / "m.png", make()), parse(*given))
    np.testing.assert_array_equal(mask.lesion, LESION)
    assert mask.void == 0
    assert mask.other == (0 if given[1] else (~LESION).sum())


@pytest.mark.parametrize("background", [None, "0"])
def test_void_goes_half_to_the_lesion_and_half_to_the_background(tmp_path, background):
    mask = read(written(tmp_path / "m.png", grey(values(1, border=255))), parse(1, background, 255))
    assert mask.void == BORDER.sum()
    np.testing.assert_array_equal(mask.lesion[~BORDER], LESION[~BORDER])
    assert 0.3 < mask.lesion[BORDER].mean() < 0.7


@pytest.mark.parametrize(("image", "given"), [
    (grey(values(255)), ("255", "0", None)),
    (colours((255, 0, 0), (0, 255, 0), (0, 0, 0)), ("red", "black+lime", None)),
])  # fmt: skip
def test_jpeg_and_soft_edges_go_to_the_nearest_label(tmp_path, image, given):
    mask = read(written(tmp_path / "m.jpg", image, quality=95, subsampling=0), parse(*given))
    assert (mask.lesion != LESION).mean() < 0.01


def test_without_background_a_jpeg_is_refused(tmp_path):
    decoded = written(tmp_path / "m.jpg", colours((255, 0, 0), (0, 255, 0), (0, 0, 0)), quality=80)
    with pytest.raises(ImageError, match=r"download\.mask_background"):
        read(decoded, parse("red", None, None))


def test_what_is_none_of_the_labels_is_refused_with_what_was_found(tmp_path):
    decoded = written(tmp_path / "m.png", grey(values(1, 0, 77, 77)))
    with pytest.raises(ImageError, match=r"77: 7\d.* %.*none of the labels"):
        read(decoded, parse(1, 0, None))


def test_a_turned_mask_is_turned_back(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = read(written(tmp_path / "m.png", grey(values(1)), exif=exif), parse(1, None, None))
    np.testing.assert_array_equal(mask.lesion, np.rot90(LESION, -1))


def test_the_parameters(tmp_path):
    assert parse(None, None, None) is None
    assert parse("1 + #ff0000, Transparent", 0, "255") == Labels((1, (255, 0, 0), "transparent"), (0,), (255,))
    for given, said in {
        (None, 0, None): "mask_lesion: not set",
        ("lesion", None, None): "found 'lesion'",
        (1, "1", None): "1 is named twice",
        ("", None, None): "at least one",
    }.items():
        with pytest.raises(InputError, match=said):
            parse(*given)
