"""The one way to open an image and read its header; nothing is decoded here.

A file's name says nothing about its content, and Pillow has parsers for some forty formats, one of which starts
Ghostscript. So every image is opened by `open_image`, which accepts only the formats of photographs and masks, and
checks the size before anything is decoded.
"""

import io
import os
import stat
import struct
from pathlib import Path
from typing import IO, Any, BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP")  # a JPEG of several pictures is opened as MPO

# 89 megapixels: the size that Pillow warns of by default, so no global setting of it is changed. The largest
# dermoscopy image of ISIC has 30.
PIXEL_LIMIT = 89_478_485
# Three uncompressed channels of 16 bits, and room for a header.
BYTE_LIMIT = 6 * PIXEL_LIMIT + (16 << 20)

LONGEST_EXIF = 1 << 20  # bytes of a PNG's eXIf chunk; a JPEG's has at most 64 KiB

SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class ImageError(ValueError):
    """An image that cannot be used; the message says why, without the path."""


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """Open an image of one of FORMATS without decoding its pixels; its size is what the header claims.

    Raises ImageError if it has another format, a damaged header or more pixels than PIXEL_LIMIT, and OSError if a path
    cannot be read.
    """
    try:
        if isinstance(file, str | Path) and not stat.S_ISREG(os.stat(file).st_mode):
            raise ImageError("is a directory, a pipe or a device, expected an image file")
        image = Image.open(file, formats=FORMATS)
        if image.width * image.height > PIXEL_LIMIT or _tile_pixels(image) > PIXEL_LIMIT:
            image.close()
            raise Image.DecompressionBombError
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"has more than {PIXEL_LIMIT // 1_000_000} megapixels, the limit here (a decompression bomb?); "
            "shrink the image and its mask"
        ) from None
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"is not an image of a format read here: {', '.join(FORMATS)}") from None
    except OSError as error:
        if error.errno is not None:
            raise
        raise ImageError(reason(error)) from None
    except Exception as error:  # Pillow's parsers raise nearly everything on broken files
        raise ImageError(reason(error)) from None
    return image


def oriented_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) in pixels of the upright image; None if the header cannot be read."""
    try:
        with open_image(path) as image:
            width, height = stored_size(image)
            sideways = orientation(image) in SIDEWAYS
    except Exception:  # headers are damaged in many ways; decoding will report it
        return None
    return (height, width) if sideways else (width, height)


def stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of an opened image as it is stored, before it is turned."""
    if isinstance(image, TiffImageFile):  # some versions of Pillow have already turned `size`, some not
        return image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength]
    return image.size


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, of an image from `open_image`.

    1 if there is none or the EXIF block is broken, as in viewers.
    """
    try:
        if isinstance(image, TiffImageFile):
            value: Any = image.tag_v2.get(ExifTags.Base.Orientation)
        else:
            if isinstance(image, PngImageFile) and "exif" not in image.info and image.fp:
                image.info["exif"] = _exif_behind_the_pixels(image.fp)
            # Not the PNG's own method, which decodes all pixels to reach what follows them.
            value = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # EXIF blocks are broken in many ways
        return 1
    return value if value in range(1, 9) else 1


def reason(error: Exception) -> str:
    """What Pillow says is wrong with a file, on one line."""
    text = " ".join(str(error).split())
    return f"cannot be decoded: {text or type(error).__name__}"


def _tile_pixels(image: Image.Image) -> int:
    """Pixels of one tile of a TIFF, which is decoded whole, however small the image."""
    if not isinstance(image, TiffImageFile):
        return 0
    width, height = (image.tag_v2.get(tag, 0) for tag in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength))
    return width * height


def _exif_behind_the_pixels(file: IO[bytes]) -> bytes:
    """The eXIf chunk of a PNG, found by stepping over the others (PNG specification, 11.3); empty if there is none."""
    position = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return b"Exif\0\0" + file.read(length) if length <= LONGEST_EXIF else b""
            file.seek(length + 4, io.SEEK_CUR)
        return b""
    finally:
        file.seek(position)
