"""A notice in place of a picture that must not be shown."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lesionseg.common.files import atomic


def withhold(path: str | Path, setting: str) -> None:
    """Write a small PNG to `path` that names the `setting` which leaves out the real picture."""
    picture = Image.new("L", (620, 60), "white")
    words = f"No photographs here: {setting} is false."
    ImageDraw.Draw(picture).text((16, 18), words, fill="black", font=ImageFont.load_default(18))
    with atomic(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
