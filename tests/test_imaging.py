"""Decoding: every mode, orientation and format comes out right, and nothing broken comes out at all."""

import ast
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from lesionseg.images import header
from lesionseg.images.decoding import decode, read_rgb
from lesionseg.images.header import PIXEL_LIMIT, ImageError, oriented_size

REAL = Path(os.environ.get("LESIONSEG_REAL_DATA", Path(__file__).parents[2] / "shared/data"))


def picture(width: int, height: int) -> Image.Image:
    """A smooth RGB picture with some grain and no symmetry, so that a wrong turn shows."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j].astype(np.float32)
    blob = np.exp(-((x - 0.3) ** 2 + (y - 0.6) ** 2) * 12)
    grain = np.random.default_rng(0).integers(-6, 7, (height, width), np.int8)
    channels = [220 - 150 * blob, 180 * x + 40 - 30 * blob, 120 * y + 60]
    return Image.fromarray(np.stack([np.clip(c + grain, 0, 255).astype(np.uint8) for c in channels], axis=-1))


def difference(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left.astype(float) - right.astype(float)).mean())


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.gif", "a.webp"])
def test_lossless_formats_come_back_as_saved(tmp_path, name):
    image = picture(40, 30)
    if name == "a.gif":
        image = image.quantize(64).convert("RGB")
    image.save(tmp_path / name, **({"lossless": True} if name == "a.webp" else {}))
    pixels, size = read_rgb(tmp_path / name)
    np.testing.assert_array_equal(pixels, np.asarray(image))
    assert size == (40, 30)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_one_channel_modes_become_the_rgb_they_stand_for(tmp_path, mode, suffix):
    image = picture(40, 30)
    image = image.quantize(100) if mode == "P" else image.convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_rgb(tmp_path / f"a.{suffix}")[0], np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    values = np.linspace(0, 65535, 40 * 30).reshape(30, 40).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    pixels, _ = read_rgb(tmp_path / f"a.{suffix}")
    assert np.abs(pixels - values[..., None] / 257).max() <= 0.51


def test_alpha_is_laid_on_black(tmp_path):
    colour = np.full((20, 20, 4), (200, 100, 50, 255), np.uint8)
    colour[:, 10:, 3] = 0
    Image.fromarray(colour).save(tmp_path / "a.png")
    pixels, _ = read_rgb(tmp_path / "a.png")
    assert (pixels[:, :10] == (200, 100, 50)).all()
    assert (pixels[:, 10:] == 0).all()


def test_grey_with_alpha_and_palette_with_transparency(tmp_path):
    image = picture(40, 30).convert("L")
    image.convert("LA").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png")[0], np.asarray(image.convert("RGB")))
    palette = picture(40, 30).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=bytes([0] + [255] * 15))
    pixels, _ = read_rgb(tmp_path / "palette.png")
    expected = np.asarray(palette.convert("RGB")).copy()
    expected[np.asarray(palette) == 0] = 0
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_looks_like_the_rgb_it_was_made_from(tmp_path, suffix):
    image = picture(64, 48)
    image.convert("CMYK").save(tmp_path / f"a.{suffix}", **({"quality": 98} if suffix == "jpg" else {}))
    assert difference(read_rgb(tmp_path / f"a.{suffix}")[0], np.asarray(image)) < 2


def test_float_pixels_are_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="float"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("size", [None, 32])
def test_every_exif_orientation_is_undone(tmp_path, orientation, suffix, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    picture(120, 80).save(path, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(path))
    pixels, native = read_rgb(path, size)
    assert native == upright.size == ((120, 80) if orientation < 5 else (80, 120))
    if size is None:
        np.testing.assert_array_equal(pixels, np.asarray(upright))
    else:
        expected = upright.resize((size, size), Image.Resampling.BILINEAR)
        assert difference(pixels, np.asarray(expected)) < 1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_leaves_the_image_as_it_is(tmp_path):
    picture(40, 30).save(tmp_path / "a.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff")
    assert read_rgb(tmp_path / "a.jpg")[1] == (40, 30)


@pytest.mark.parametrize(("width", "height"), [(3003, 2217), (1031, 770), (641, 1300), (300, 200)])
@pytest.mark.parametrize("options", [{"quality": 85}, {"quality": 95, "progressive": True, "subsampling": 0}])
@pytest.mark.parametrize("size", [256, 512])
def test_dct_scaling_stays_within_one_grey_level_of_a_full_decode(tmp_path, width, height, options, size):
    picture(width, height).save(tmp_path / "a.jpg", **options)
    full = Image.open(tmp_path / "a.jpg").resize((size, size), Image.Resampling.BILINEAR)
    assert difference(read_rgb(tmp_path / "a.jpg", size)[0], np.asarray(full)) < 1


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
@pytest.mark.parametrize("size", [128, 256, 512])
def test_dct_scaling_on_real_images(size):
    paths = sorted((REAL / "isic2017-native/images").glob("*.jpg"))
    assert paths
    for path in paths:
        full = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
        assert difference(read_rgb(path, size)[0], np.asarray(full)) < 1, path.name


def test_shrinking_is_antialiased(tmp_path):
    """Stripes one pixel wide average out; sampling without a filter would turn them into a pattern."""
    stripes = np.zeros((320, 330, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert np.abs(read_rgb(tmp_path / "a.png", 32)[0].astype(int) - 127).max() < 20


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"quality": 90}),
        ("a.jpg", {"quality": 90, "progressive": True}),
        ("a.png", {}),
        ("a.bmp", {}),
        ("a.tif", {}),
        ("a.webp", {"lossless": True}),
    ],
)
@pytest.mark.parametrize("size", [None, 32])
def test_a_file_cut_off_anywhere_is_refused(tmp_path, name, options, size):
    path = tmp_path / name
    picture(400, 300).save(path, **options)
    whole = path.read_bytes()
    for share in (0.01, 0.2, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some decoders warn as well
            with pytest.raises(ImageError):
                read_rgb(path, size)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_real_truncated_images_are_refused_at_every_scale():
    paths = sorted((REAL / "truncated-jpeg").glob("*.jpg"))
    assert len(paths) == 3
    for path in paths:
        for size in (None, 64, 256, 1024):
            with pytest.raises(ImageError, match="truncated"):
                read_rgb(path, size)


def test_a_flipped_bit_in_a_png_is_found(tmp_path):
    path = tmp_path / "a.png"
    picture(200, 150).save(path)
    content = bytearray(path.read_bytes())
    content[-30] ^= 1  # the checksum at the end of the pixel data
    path.write_bytes(content)
    with pytest.raises(ImageError):
        read_rgb(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: a decompression bomb's header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9_500, 14_000, 60_000])
def test_a_decompression_bomb_is_refused_without_touching_pillow(tmp_path, side):
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    before = Image.MAX_IMAGE_PIXELS
    with pytest.raises(ImageError, match="more than 89 megapixels"):
        read_rgb(tmp_path / "a.png", 256)
    assert before == Image.MAX_IMAGE_PIXELS
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_30_megapixel_image_is_fine(tmp_path):
    Image.new("RGB", (6708, 4439), (200, 150, 120)).save(tmp_path / "a.jpg")
    pixels, size = read_rgb(tmp_path / "a.jpg", 64)
    assert size == (6708, 4439)
    assert size[0] * size[1] < PIXEL_LIMIT / 2
    assert np.abs(pixels.astype(int) - (200, 150, 120)).max() <= 4


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "not found"), (b"", "is empty"), (b"not an image", "not an image of a format read here")],
)
def test_what_is_no_image_is_named_as_such(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=message):
        read_rgb(tmp_path / "a.jpg")


def test_a_directory_is_named_as_such(tmp_path):
    with pytest.raises(ImageError, match="is a directory"):
        read_rgb(tmp_path)


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n(ran) print\n%%EOF\n"


@pytest.mark.parametrize("kind", ["EPS", "PPM", "SGI", "TGA", "ICO", "PCX", "IM", "JPEG2000", "DDS", "MSP"])
def test_a_format_we_do_not_mean_reaches_no_parser_whatever_the_name_says(tmp_path, monkeypatch, kind):
    """An EPS file would start Ghostscript; Pillow writes and reads each of these."""
    path = tmp_path / "a.jpg"
    if kind == "EPS":
        path.write_bytes(POSTSCRIPT)
    else:
        picture(40, 30).convert("1" if kind == "MSP" else "RGB").save(path, kind)
    with Image.open(path) as opened:
        assert opened.format == kind
    _, accept = Image.OPEN[kind]

    def parse(*_):
        raise AssertionError(f"the {kind} parser was called")

    monkeypatch.setitem(Image.OPEN, kind, (parse, accept))
    with pytest.raises(ImageError, match="not an image of a format read here: JPEG, PNG"):
        decode(path)
    assert oriented_size(path) is None


def test_every_image_is_opened_with_the_formats_named():
    root = Path(__file__).parents[1]
    opened = {}
    for path in [*root.glob("src/**/*.py"), *root.glob("stages/*.py")]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "Image.open":
                opened[path.name] = any(keyword.arg == "formats" for keyword in call.keywords)
    assert opened.pop("header.py")
    assert all(opened.values()), opened


def test_the_header_of_a_png_is_read_without_decoding(tmp_path, monkeypatch):
    picture(120, 80).save(tmp_path / "a.png")

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    assert oriented_size(tmp_path / "a.png") == (120, 80)


@pytest.mark.parametrize("behind", [False, True])
def test_the_orientation_of_a_png_is_found_wherever_it_stands(tmp_path, behind):
    """The eXIf chunk may lie before or behind the pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.png"
    picture(120, 80).save(path, exif=exif)
    if behind:
        content = path.read_bytes()
        start = content.index(b"eXIf") - 4
        stop = start + 12 + struct.unpack(">I", content[start : start + 4])[0]
        path.write_bytes(content[:start] + content[stop:-12] + content[start:stop] + content[-12:])
    assert oriented_size(path) == (80, 120)
    assert read_rgb(path)[1] == (80, 120)


@pytest.mark.parametrize("read", [decode, oriented_size])
def test_too_many_pixels_are_refused_before_any_is_decoded(tmp_path, monkeypatch, read):
    (tmp_path / "a.png").write_bytes(png_header(9_500, 9_500))

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    if read is oriented_size:
        assert read(tmp_path / "a.png") is None
    else:
        with pytest.raises(ImageError, match="more than 89 megapixels"):
            read(tmp_path / "a.png")


def test_a_tiff_of_huge_tiles_is_refused(tmp_path):
    """One tile is decoded whole: 10 × 10 pixels of it would take as much memory as it pleases."""
    path = tmp_path / "a.tif"
    tags = {256: 10, 257: 10, 258: 8, 259: 8, 262: 1, 277: 1, 322: 60_000, 323: 60_000, 324: 8, 325: 100}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(200))
    with pytest.raises(ImageError, match="more than 89 megapixels"):
        decode(path)


def test_a_file_longer_than_any_image_is_not_read(tmp_path, monkeypatch):
    picture(40, 30).save(tmp_path / "a.bmp")
    monkeypatch.setattr("lesionseg.images.decoding.BYTE_LIMIT", 1000)
    with pytest.raises(ImageError, match="more than any image of 89 megapixels"):
        decode(tmp_path / "a.bmp")
    assert header.BYTE_LIMIT > 6 * PIXEL_LIMIT


def test_a_jpeg_of_endless_scans_is_refused(tmp_path):
    """Each scan of a progressive JPEG is a pass over all pixels: at 89 megapixels a megabyte of them took hours."""
    path = tmp_path / "a.jpg"
    picture(64, 48).save(path, progressive=True)
    content = path.read_bytes()
    last = content[content.rindex(b"\xff\xda") : -2]
    path.write_bytes(content[:-2] + last * 80 + content[-2:])
    assert decode(path).width == 64
    path.write_bytes(content[:-2] + last * 101 + content[-2:])
    with pytest.raises(ImageError, match="more than 100 scans"):
        decode(path, 32)


def test_a_header_is_read_no_further_than_a_header_goes(tmp_path):
    """An eXIf chunk may claim to be hundreds of megabytes long."""
    path = tmp_path / "a.png"
    picture(120, 80).save(path)
    exif = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 0x0112, 3, 1, 6) + bytes(4)
    for length, size in ((1000, (80, 120)), (2 << 20, (120, 80))):
        data = exif.ljust(length, b"\0")
        chunk = struct.pack(">I", length) + b"eXIf" + data + struct.pack(">I", zlib.crc32(b"eXIf" + data))
        (tmp_path / "b.png").write_bytes(path.read_bytes()[:-12] + chunk + path.read_bytes()[-12:])
        assert oriented_size(tmp_path / "b.png") == size


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
def test_a_pipe_is_no_photograph_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="is a pipe or a device"):
        decode(tmp_path / "a.jpg")
    assert oriented_size(tmp_path / "a.jpg") is None


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_several_pages_are_refused(tmp_path, suffix):
    pages = [Image.new("L", (40, 30), level) for level in (10, 120, 240)]
    pages[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match="several pages"):
        read_rgb(tmp_path / f"a.{suffix}")


def test_a_preview_behind_the_picture_is_no_page(tmp_path):
    Image.new("L", (40, 30), 90).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (20, 15), 9)])
    pixels, size = read_rgb(tmp_path / "a.tif")
    assert size == (40, 30)
    assert (pixels == 90).all()
