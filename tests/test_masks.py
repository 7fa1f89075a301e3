"""The rule for what counts as a binary mask, and how masks shrink."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFilter

from lesionseg.images.decoding import ImageError, decode
from lesionseg.images.masks import binary, read_mask, shrink


def lesion(height: int = 120, width: int = 160) -> np.ndarray:
    """bool: an ellipse off the centre."""
    y, x = np.mgrid[:height, :width]
    return ((x - width * 0.4) / (width * 0.25)) ** 2 + ((y - height * 0.6) / (height * 0.3)) ** 2 < 1


def save(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def palette(indices: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(colours)
    return image


EXACT = {
    "0 and 255": lambda m: grey(m * 255),
    "0 and 1": lambda m: grey(m),
    "1 bit": lambda m: Image.fromarray(m),
    "RGB": lambda m: grey(m * 255).convert("RGB"),
    "opaque alpha": lambda m: grey(m * 255).convert("RGBA"),
    "white shape on transparent": lambda m: Image.merge("LA", (grey(np.full(m.shape, 255)), grey(m * 255))),
    "16 bits, 0 and 65535": lambda m: Image.fromarray(m.astype(np.uint16) * np.uint16(65535)),
    "16 bits, 0 and 255": lambda m: Image.fromarray(m.astype(np.uint16) * np.uint16(255)),
    "16 bits, 0 and 1": lambda m: Image.fromarray(m.astype(np.uint16)),
    "palette of black and white": lambda m: palette(m, [0, 0, 0, 255, 255, 255]),
    "palette whose index 0 is white": lambda m: palette(~m, [255, 255, 255, 0, 0, 0]),
    "palette with unused colours": lambda m: palette(m * 3 + ~m * 1, [9, 9, 9, 0, 0, 0, 255, 0, 0, 255, 255, 255]),
    "float, 0 and 1": lambda m: Image.fromarray(m.astype(np.float32)),
    "32 bits, 0 and 255": lambda m: Image.fromarray(m.astype(np.int32) * 255),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("suffix", ["png", "tif", "gif"])
def test_exact_masks_of_every_kind(tmp_path, name, suffix):
    image = EXACT[name](lesion())
    cannot = {"png": ("F", "I"), "tif": (), "gif": ("F", "I", "I;16", "RGBA", "LA", "RGB")}
    if image.mode in cannot[suffix]:
        pytest.skip(f"no {image.mode} in {suffix}")
    path = save(tmp_path / f"m.{suffix}", image)
    mask = read_mask(path)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, lesion())
    image, pixels = binary(decode(path))
    assert pixels == lesion().sum() == image.histogram()[255]


@pytest.mark.parametrize("share", [0, 1])
@pytest.mark.parametrize("top", [1, 255])
def test_empty_and_full_masks(tmp_path, share, top):
    path = save(tmp_path / "m.png", grey(np.full((9, 7), share * top)))
    assert (read_mask(path) == share).all()


@pytest.mark.parametrize("quality", [60, 75, 95])
def test_jpeg_noise_is_cleaned(tmp_path, quality):
    path = save(tmp_path / "m.jpg", grey(lesion(480, 640) * 255), quality=quality)
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    assert (read_mask(path) != lesion(480, 640)).mean() < 1e-3


def test_a_black_jpeg_with_noise_is_empty_and_not_a_0_1_mask(tmp_path):
    values = np.zeros((64, 64), np.uint8)
    values[:8, :8] = 1
    path = save(tmp_path / "m.jpg", grey(values), quality=100)
    assert np.asarray(Image.open(path)).max() == 1
    assert not read_mask(path).any()


def test_0_and_1_that_fill_areas_of_a_jpeg_are_no_empty_mask(tmp_path):
    path = save(tmp_path / "m.jpg", grey(lesion(240, 320).astype(np.uint8)), quality=95)
    with pytest.raises(ImageError, match=r"grey values \(.*expected a binary mask.*mask_lesion"):
        read_mask(path)


def test_smoothed_edges_are_cut_at_the_middle(tmp_path):
    soft = grey(lesion(480, 640) * 255).filter(ImageFilter.GaussianBlur(1))
    mask = read_mask(save(tmp_path / "m.png", soft))
    np.testing.assert_array_equal(mask, np.asarray(soft) >= 128)


@pytest.mark.parametrize(
    "values",
    [
        np.tile(np.arange(256), (64, 1)),  # a probability map, or a photograph
        np.arange(3).repeat(100).reshape(3, 100),  # a label map
        lesion() * 128,  # two values, neither of them the known ones
        lesion() * 127 + 128,
        lesion() * 20,
    ],
)
def test_what_is_no_mask_is_refused_with_what_was_found(tmp_path, values):
    path = save(tmp_path / "m.png", grey(values))
    with pytest.raises(ImageError, match=rf"has {len(np.unique(values))} grey values .*expected a binary mask"):
        read_mask(path)


def stripe(m: np.ndarray, value: int, width: int = 3) -> np.ndarray:
    """The mask as values 0 and 1, with a border of `value` around the lesion, as annotators leave it."""
    grown = np.asarray(grey(m * 255).filter(ImageFilter.MaxFilter(2 * width + 1))) > 0
    return np.where(m, 1, np.where(grown, value, 0))


def first(m: np.ndarray, *values: int) -> np.ndarray:
    """The mask as 0 and 1, with these values in its first pixels."""
    labels = m.astype(int)
    labels[0, : len(values)] = values
    return labels


def quarters(m: np.ndarray, *values: int) -> np.ndarray:
    """A label map of four areas within the lesion."""
    y, x = np.mgrid[: m.shape[0], : m.shape[1]]
    return np.where(m, np.array(values)[(y > m.shape[0] * 0.6) * 2 + (x > m.shape[1] * 0.4)], 0)


LABEL_MAPS = {
    "0, 1 and 255 to be ignored": lambda m: stripe(m, 255),
    "0, 1, 2 and 255": lambda m: np.where(stripe(m, 255) == 255, 255, quarters(m, 1, 2, 2, 1)),
    "a stray 255 in 0 and 1": lambda m: first(m, 255),
    "a stray 254 and 255 in 0 and 1": lambda m: first(m, 254, 255),
    "0, 2 and 255": lambda m: np.where(stripe(m, 255) == 1, 2, stripe(m, 255)),
    "a border of 128 between 0 and 255": lambda m: np.where(stripe(m, 9) == 9, 128, m * 255),
    "0, 254 lesion, 255 void": lambda m: np.where(stripe(m, 255) == 1, 254, stripe(m, 255)),
    "instances 1 to 20 and 255": lambda m: np.where(stripe(m, 255) == 255, 255, m * (np.indices(m.shape)[1] // 8 + 1)),
    "four classes": lambda m: quarters(m, 1, 2, 3, 255),
    "0 and 1 upside down with 255": lambda m: np.where(stripe(m, 255) == 255, 255, 1 - m.astype(int)),
}


@pytest.mark.parametrize("name", LABEL_MAPS)
@pytest.mark.parametrize("kind", ["png", "bmp", "tif", "RGB", "palette", "16 bits", "jpg"])
def test_a_label_map_never_passes_for_black_and_white(tmp_path, name, kind):
    values = LABEL_MAPS[name](lesion(240, 320))
    match kind:
        case "RGB":
            path = save(tmp_path / "m.png", grey(values).convert("RGB"))
        case "palette":
            path = save(tmp_path / "m.png", palette(values, [value for value in range(256) for _ in "RGB"]))
        case "16 bits":
            path = save(tmp_path / "m.png", Image.fromarray(values.astype(np.uint16)))
        case "jpg":  # so fine that the values stay apart, where they fill areas
            if any(word in name for word in ("stray", "instances", "border", "254")):
                pytest.skip("what is left of the labels cannot be told from noise")
            path = save(tmp_path / "m.jpg", grey(values), quality=100)
        case _:
            path = save(tmp_path / f"m.{kind}", grey(values))
    with pytest.raises(ImageError, match=r"values \(.*: .*%.*expected a binary mask"):
        read_mask(path)


@pytest.mark.parametrize("quality", [10, 50, 90, 100])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_noise_of_a_jpeg_is_no_label(tmp_path, quality, mode):
    """Neither in the JPEG nor in a PNG made of it."""
    m = lesion(480, 640)
    jpeg = save(tmp_path / "m.jpg", grey(m * 255).convert(mode), quality=quality)
    png = save(tmp_path / "m.png", Image.open(jpeg))
    for path in (jpeg, png):
        assert (read_mask(path) != m).mean() < 5e-3


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("filter", list(Image.Resampling))
def test_the_few_values_of_a_halved_mask_are_no_labels(tmp_path, factor, filter):
    m = lesion(480, 960)
    small = grey(m * 255).resize((960 // factor, 480 // factor), filter)
    mask = read_mask(save(tmp_path / "m.png", small))
    np.testing.assert_array_equal(mask, np.asarray(small) >= 128)


def coloured(m: np.ndarray, on: tuple, off: tuple) -> Image.Image:
    return Image.fromarray(np.where(m[..., None], on, off).astype(np.uint8))


NO_MASKS = {  # what it is -> (image, what the refusal says)
    "red on black": (lambda m: coloured(m, (250, 50, 83), (0, 0, 0)), r"2 colours \(#000000: .*#fa3253: .*mask_lesion"),
    "red and blue": (lambda m: coloured(m, (255, 0, 0), (0, 0, 255)), "2 colours"),
    "palette, index 0 red": (lambda m: palette(~m, [255, 0, 0, 0, 0, 0]), "#ff0000"),
    "palette, index 1 maroon": (lambda m: palette(m, [0, 0, 0, 128, 0, 0]), "#800000"),
    "three colours": (lambda m: coloured(m, (255, 0, 0), (0, 0, 0)).transpose(0), "colours"),
    "a tenth of the lesion red": (lambda m: coloured(quarters(m, 0, 0, 0, 1) > 0, (255, 0, 0), (0, 0, 0)), "colours"),
    "red on transparent": (lambda m: coloured(m, (255, 0, 0, 255), (0, 0, 0, 0)), "#ff0000"),
    "black on transparent": (lambda m: coloured(m, (0, 0, 0, 255), (0, 0, 0, 0)), "mask_lesion: opaque or transparent"),
    "black on transparent white": (lambda m: coloured(m, (0, 0, 0, 255), (255, 255, 255, 0)), "opaque or transparent"),
    "grey and transparent": (lambda m: Image.merge("LA", (grey(m * 0), grey(m * 255))), "opaque or transparent"),
    "half transparent": (lambda m: coloured(m, (255, 255, 255, 128), (0, 0, 0, 128)), "semi-transparent"),
    "lesion half transparent": (lambda m: coloured(m, (255, 255, 255, 120), (0, 0, 0, 0)), "semi-transparent"),
    "colours as dark as values": (lambda m: coloured(m, (1, 0, 0), (0, 0, 0)), r"2 colours \(.*#010000: .*mask_lesion"),
    "palette of values": (lambda m: palette(m, [0, 0, 0, 0, 1, 0]), "#000100"),
    "transparent all over": (lambda m: coloured(m, (255, 255, 255, 0), (0, 0, 0, 0)), "transparent all over"),
    "0 and 1 in every channel": (lambda m: coloured(m, (1, 1, 1, 1), (0, 0, 0, 0)), "transparent all over"),
    "12 bits in 16": (lambda m: Image.fromarray(m.astype(np.uint16) * np.uint16(4095)), "4095"),
    "probabilities, float": (lambda m: Image.fromarray(m * np.float32(0.7)), "0.7"),
}


@pytest.mark.parametrize("name", NO_MASKS)
def test_colours_and_transparency_that_decide_nothing_are_refused(tmp_path, name):
    make, said = NO_MASKS[name]
    image = make(lesion())
    with pytest.raises(ImageError, match=said):
        read_mask(save(tmp_path / ("m.tif" if image.mode == "F" else "m.png"), image))


@pytest.mark.parametrize("share_of_image", [0.5, 0.02])
def test_a_coloured_jpeg_is_refused_however_small_the_lesion(tmp_path, share_of_image):
    m = np.zeros((200, 200), bool)
    m[:, : int(200 * share_of_image)] = True
    with pytest.raises(ImageError, match="colours"):
        read_mask(save(tmp_path / "m.jpg", coloured(m, (255, 0, 0), (0, 0, 0)), quality=90))


def test_colours_are_no_mask(tmp_path):
    colours = np.where(lesion()[..., None], (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    with pytest.raises(ImageError, match="expected a binary mask"):
        read_mask(save(tmp_path / "m.png", Image.fromarray(colours)))


@pytest.mark.parametrize("values", [np.arange(3), [0, 1000], [1, 65535]])
def test_16_bit_values_without_a_meaning_are_refused(tmp_path, values):
    path = save(tmp_path / "m.png", Image.fromarray(np.resize(np.array(values, np.uint16), (12, 12))))
    with pytest.raises(ImageError, match="expected a binary mask"):
        read_mask(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("white", [1, 255, 4095])
def test_colours_of_16_bits_are_refused_where_8_of_them_hold_nothing(tmp_path, suffix, white):
    """Pillow keeps the upper half of each value."""
    path = tmp_path / f"m.{suffix}"
    cv2.imwrite(str(path), np.stack([lesion().astype(np.uint16) * white] * 3, axis=2))
    with pytest.raises(ImageError, match=r"16-bit|expected a binary mask"):
        read_mask(path)
    cv2.imwrite(str(path), np.stack([lesion().astype(np.uint16) * 65535] * 3, axis=2))
    assert np.array_equal(read_mask(path), lesion())


def test_a_transparent_mask_of_nothing_is_empty(tmp_path):
    assert not read_mask(save(tmp_path / "m.png", Image.new("RGBA", (8, 8)))).any()


def test_a_turned_mask_is_turned_back(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "m.png", grey(lesion() * 255), exif=exif)
    np.testing.assert_array_equal(read_mask(path), np.rot90(lesion(), -1))


@pytest.mark.parametrize(("height", "width"), [(128, 96), (320, 480), (64, 32)])
def test_shrinking_is_the_area_average_at_one_half(height, width):
    """Whole-number reductions, where the average is exact."""
    mask = np.random.default_rng(0).random((height, width)) < 0.5
    average = mask.reshape(32, height // 32, 32, width // 32).mean(axis=(1, 3))
    expected = average >= 0.5
    small = shrink(grey(mask * 255), 32)
    assert small.dtype == np.uint8
    # Pillow rounds to 8 bits between the two directions: only averages of about one half may fall either way.
    clear = np.abs(average - 0.5) > 2 / 255
    np.testing.assert_array_equal(small[clear], expected[clear])
    np.testing.assert_array_equal(small[average == 0.5], 1)


@pytest.mark.parametrize(("height", "width", "size"), [(767, 1022, 256), (1000, 700, 64)])
def test_shrinking_counts_each_pixel_in_the_cell_of_its_centre(height, width, size):
    # A centre right on a border belongs to the cell before it.
    rows, columns = (np.ceil((np.arange(n) + 0.5) * size / n).astype(int) - 1 for n in (height, width))
    cell = rows[:, None] * size + columns
    mask = np.random.default_rng(0).random((height, width)) < 0.5
    count = np.bincount(cell.ravel(), minlength=size * size)
    average = (np.bincount(cell.ravel(), mask.ravel(), size * size) / count).reshape(size, size)
    clear = np.abs(average - 0.5) > 2 / 255
    np.testing.assert_array_equal(shrink(grey(mask * 255), size)[clear], average[clear] > 0.5)
    assert clear.mean() > 0.3


def test_shrinking_keeps_the_area():
    mask = lesion(1234, 1777)
    small = shrink(grey(mask * 255), 256)
    assert small.mean() == pytest.approx(mask.mean(), abs=2e-3)


def test_growing_repeats_pixels():
    mask = np.random.default_rng(0).random((16, 16)) < 0.5
    np.testing.assert_array_equal(shrink(grey(mask * 255), 64), mask.repeat(4, 0).repeat(4, 1))


@pytest.mark.parametrize("turned", [False, True])
def test_one_axis_may_shrink_while_the_other_grows(turned):
    """One of every four columns is lesion, then three of four: no column is skipped."""
    mask = np.zeros((16, 256), bool)
    mask[:, ::4] = mask[:, 129::4] = mask[:, 130::4] = True
    small = shrink(grey((mask.T if turned else mask) * 255), 64)
    np.testing.assert_array_equal(small.T if turned else small, [[False] * 32 + [True] * 32] * 64)


def test_the_growing_axis_is_linear_as_the_image_is():
    """From a quarter of the pixels to all of them: half is reached before the border of the two rows."""
    mask = np.ones((2, 32), bool)
    mask[0] = np.arange(32) % 4 == 0
    small = shrink(grey(mask * 255), 8)
    np.testing.assert_array_equal(small, np.repeat([0, 1], (3, 5))[:, None].repeat(8, 1))


def test_a_broken_mask_is_an_image_error(tmp_path):
    buffer = io.BytesIO()
    grey(lesion() * 255).save(buffer, "png")
    (tmp_path / "m.png").write_bytes(buffer.getvalue()[:-40])
    with pytest.raises(ImageError):
        read_mask(tmp_path / "m.png")
