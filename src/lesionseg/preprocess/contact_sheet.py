"""One picture of the data set: samples with the outlines of their masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lesionseg.common.files import atomic
from lesionseg.formats.processed import Sample

TILE = 112  # pixels
CAPTION = 14
COLUMNS, ROWS = 8, 4
OUTLINE = (0, 255, 120)
LIMIT = 240_000  # bytes of the file: git keeps every version of it
COLOURS = (256, 128, 64, 32, 16)  # palette sizes tried until the file is below the limit


def contact_sheet(images: np.ndarray, masks: np.ndarray, samples: Sequence[Sample]) -> Image.Image:
    """Up to 32 samples, from the smallest lesion to the largest, with outline, id, split and lesion fraction.

    `images` uint8 (N, H, W, 3), `masks` uint8 0/1 (N, H, W). Returns an RGB picture.
    """
    order = sorted(range(len(samples)), key=lambda index: (samples[index].lesion_fraction, samples[index].id))
    count = min(len(order), COLUMNS * ROWS)
    shown = [order[index] for index in np.linspace(0, len(order) - 1, count).round().astype(int)]
    rows = -(-count // COLUMNS)
    sheet = Image.new("RGB", (min(count, COLUMNS) * TILE, rows * (TILE + CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(9)
    for place, index in enumerate(shown):
        left, top = place % COLUMNS * TILE, place // COLUMNS * (TILE + CAPTION)
        sheet.paste(outlined(images[index], masks[index], TILE - 2), (left + 1, top + 1))
        sample = samples[index]
        name, rest = sample.id, f" {sample.split} {sample.lesion_fraction:.1%}"
        while font.getlength(name + rest) > TILE - 4 and len(name) > 1:
            name = "…" + name[2:]  # ids differ at their ends
        text = name + rest
        draw.text((left + 2, top + TILE), text, fill="black", font=font)
    return sheet


def outlined(image: np.ndarray, mask: np.ndarray, size: int) -> Image.Image:
    """A square tile of the image with the outline of its mask, one pixel wide."""
    tile = np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    lesion = np.asarray(Image.fromarray(mask * np.uint8(255)).resize((size, size), Image.Resampling.BOX)) >= 128
    framed = np.pad(lesion, 1)
    inside = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    tile[lesion & ~inside] = OUTLINE
    return Image.fromarray(tile)


def save_png(picture: Image.Image, path: str | Path) -> None:
    """Save with the largest palette that keeps the file below `LIMIT`, or else the smallest."""
    with atomic(path) as temporary:
        for colours in COLOURS:
            palette = picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            palette.save(temporary, format="PNG", optimize=True)
            if temporary.stat().st_size <= LIMIT:
                break
