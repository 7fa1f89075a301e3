"""Small archives in the layout of the official ISIC 2018 Task 1 files, made from drawn images."""

import io
import random
import zipfile
from collections.abc import Mapping

from PIL import Image, ImageDraw

from lesionseg.download.isic2018 import SETS

TRAINING = SETS["training"]


def archive(name: str, members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive with the members below the folder `name`, and attribution and licence beside them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        file.writestr(f"{name}/", b"")
        file.writestr(f"{name}/ATTRIBUTION.txt", b"Tschandl et al. 2018\n")
        for member, content in members.items():
            file.writestr(f"{name}/{member}", content)
        file.writestr(f"{name}/LICENSE.txt", b"CC-0\n")
    return buffer.getvalue()


def identifier(number: int) -> str:
    return f"ISIC_{number:07d}"


def photograph(number: int, noise: int = 2000) -> bytes:
    """A JPEG of a blob, made `noise` bytes longer by bytes after its end, which decoders pass over."""
    image = Image.new("RGB", (60 + number % 7, 40), (200, 160, 140))
    ImageDraw.Draw(image).ellipse((10, 8, 40 + number % 9, 30), (90, 50, 40))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG")
    return buffer.getvalue() + random.Random(number).randbytes(noise)


def outline(number: int) -> bytes:
    """The mask of `photograph(number)`, a PNG."""
    image = Image.new("L", (60 + number % 7, 40))
    ImageDraw.Draw(image).ellipse((10, 8, 40 + number % 9, 30), 255)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def official(numbers: Mapping[str, range], noise: int = 2000) -> dict[str, bytes]:
    """The archives of the subsets named, as `<name>.zip` -> content, superpixel files among the images."""
    files = {}
    for subset, range_ in numbers.items():
        images, masks = SETS[subset].images.name, SETS[subset].masks.name
        members = {}
        for number in range_:
            members[f"{identifier(number)}.jpg"] = photograph(number, noise)
            members[f"{identifier(number)}_superpixels.png"] = b"not a sample"
        files[f"{images}.zip"] = archive(images, members)
        members = {f"{identifier(number)}_segmentation.png": outline(number) for number in range_}
        files[f"{masks}.zip"] = archive(masks, members, zipfile.ZIP_DEFLATED)
    return files
