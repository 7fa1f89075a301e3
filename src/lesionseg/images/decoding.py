"""Decoding of images: every common mode and orientation, whole or not at all, no larger than needed.

JPEG can be decoded at 1/2, 1/4 or 1/8 of its size from the low-frequency DCT coefficients alone ("DCT scaling"), which
skips most of the arithmetic but still reads, and so checks, the whole file. `read_rgb` uses it if the scaled image is
still larger than the wanted one, and does the rest with an antialiasing filter.
"""

import io
import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lesionseg.images.header import BYTE_LIMIT, PIXEL_LIMIT, SIDEWAYS, ImageError, open_image, orientation, reason

# The DCT-scaled image must be at least this many times the wanted size on both axes. Closer to 1 is faster and
# cruder: at 1.25 the mean difference from a full decode stays below 0.6 of 255.
DCT_MARGIN = 1.25

# A progressive JPEG has about ten scans; each costs a pass over all pixels, and may be only a few bytes long. libtiff
# has the same limit for a JPEG in a TIFF.
MOST_SCANS = 100
START_OF_SCAN = b"\xff\xda"

PAGED_FORMATS = ("TIFF", "GIF", "PNG", "WEBP")  # MPO, of phones, holds versions of one photograph, the best first
LOSSY_FORMATS = ("JPEG", "MPO", "WEBP")

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Decoded:
    """A loaded image in its own mode, not yet turned upright."""

    image: Image.Image
    width: int  # native size in pixels, upright
    height: int
    box: tuple[float, float, float, float] | None  # the picture within a DCT-scaled image; None: all of it
    orientation: int  # EXIF, 1 to 8
    halved: bool = False  # stored with 16 bits per colour, of which Pillow returns the upper 8

    def upright(self, image: Image.Image) -> Image.Image:
        """Turn `image`, which was made from this one, as the EXIF orientation says."""
        turn = _TRANSPOSE.get(self.orientation)
        return image if turn is None else image.transpose(turn)


def read_rgb(path: str | Path, size: int | None = None) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image upright as RGB, resized to a square of `size` pixels (None: as it is).

    Returns uint8 (size, size, 3), or (height, width, 3), and the native (width, height) after EXIF orientation.
    Shrinking is antialiased: a triangle filter as wide as the reduction (Pillow's BILINEAR). Transparency is put on
    black, 16-bit grey is scaled to 8 bits. Raises ImageError if the file is missing, broken or not an image.
    """
    decoded = decode(path, size)
    return rgb(decoded, size), (decoded.width, decoded.height)


def rgb(decoded: Decoded, size: int | None = None) -> np.ndarray:
    """The pixels of an image that was decoded for this `size`, as `read_rgb` returns them: uint8 (height, width, 3)."""
    image = to_rgb(decoded.image)
    if size is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=decoded.box)
    return np.asarray(decoded.upright(image))


def decode(path: str | Path, size: int | None = None) -> Decoded:
    """Read and decode the whole file; a JPEG at the smallest DCT scale of at least `DCT_MARGIN` times `size`.

    Raises ImageError if the file is missing, empty, truncated, damaged, no image, or larger than `PIXEL_LIMIT`.
    """
    data = _read(path)
    image = open_image(io.BytesIO(data))
    box, stored, turn = None, image.size, orientation(image)
    halved = image.mode in ("LA", "RGB", "RGBA") and any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    try:
        _check_single(image)
        if image.format in ("JPEG", "MPO") and data.count(START_OF_SCAN) > MOST_SCANS:
            raise ImageError(f"has more than {MOST_SCANS} scans, the limit here (made to take hours?); save it again")
        if size is not None and image.format in ("JPEG", "MPO"):
            wanted = round(DCT_MARGIN * size)
            draft = image.draft(None, (wanted, wanted))
            box = draft[1] if draft else None
        if image.format == "PNG":
            # Loading a PNG does not verify the checksums of its chunks.
            open_image(io.BytesIO(data)).verify()
        image.load()
    except (MemoryError, ImageError):
        raise
    except Exception as error:  # Pillow's decoders raise nearly everything on broken files
        raise ImageError(reason(error)) from None
    if image.format == "TIFF":
        stored, turn = image.size, 1  # Pillow has turned it while loading
    width, height = stored[::-1] if turn in SIDEWAYS else stored
    return Decoded(image, width, height, box, turn, halved)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB: alpha on black, 16-bit grey scaled to 8 bits. Raises ImageError for float images."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise ImageError("has 32-bit float pixels, expected 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"has values from {values.min()} to {values.max()}, expected 8 or 16 bits")
        # 257 = 65535 / 255; Pillow's own conversion would clip at 255.
        return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA"):
        colour = image.convert("RGBA")
        black = Image.new("RGBA", colour.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, colour).convert("RGB")
    return image.convert("RGB")


def _check_single(image: Image.Image) -> None:
    """Raise ImageError if another page follows, unless it is a smaller copy, as previews and pyramids are."""
    if image.format not in PAGED_FORMATS:
        return
    size = image.size
    try:
        image.seek(1)
    except EOFError:
        return
    if image.width >= size[0] and image.height >= size[1]:
        raise ImageError("has several pages, expected one picture; save the right page as a file of its own")
    image.seek(0)


def _read(path: str | Path) -> bytes:
    """The bytes of an image file. Raises ImageError if there are none or too many."""
    try:
        status = Path(path).stat()
        length = status.st_size
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise ImageError("is a pipe or a device, expected an image file")
        if length > BYTE_LIMIT:
            raise ImageError(f"has {length} bytes, more than any image of {PIXEL_LIMIT // 1_000_000} megapixels")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise ImageError("not found") from None
    except IsADirectoryError:
        raise ImageError("is a directory, expected an image file") from None
    if not data:
        raise ImageError("is empty, expected an image file")
    return data
