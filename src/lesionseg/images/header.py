"""The size of an image from its header, without decoding it."""

from pathlib import Path

from PIL import ExifTags, Image

_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def oriented_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) in pixels as the image is meant to be seen, None when the header cannot be read."""
    try:
        with Image.open(path) as image:
            if image.format == "TIFF":  # some versions of Pillow have already turned `size`, some not
                width, height = (
                    image.tag_v2[ExifTags.Base.ImageWidth],
                    image.tag_v2[ExifTags.Base.ImageLength],
                )
                orientation = image.tag_v2.get(ExifTags.Base.Orientation)
            else:
                width, height = image.size
                orientation = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # Pillow answers a damaged header with a dozen kinds; what is wrong, decoding it will say
        return None
    return (height, width) if orientation in _SIDEWAYS else (width, height)
