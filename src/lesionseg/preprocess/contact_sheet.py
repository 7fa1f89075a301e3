"""One picture of the data set: samples with their masks outlined."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lesionseg.common.files import atomic
from lesionseg.formats.processed import Rows, Sample

TILE = 140  # pixels
CAPTION = 32
TITLE = 48
COLUMNS, ROWS = 6, 3
OUTLINE = (0, 255, 120)
LIMIT = 240_000  # bytes of the file: git keeps every version of it
COLOURS = (256, 128, 64, 32, 16)  # palette sizes, tried until the file is small enough


def contact_sheet(images: Rows, masks: Rows, samples: Sequence[Sample]) -> Image.Image:
    """Up to 18 samples, from the smallest lesion to the largest, with outline, id, split and lesion fraction.

    `images` uint8 (N, H, W, 3), `masks` uint8 0/1 (N, H, W). Returns an RGB picture with a title and a key.
    """
    order = sorted(range(len(samples)), key=lambda index: (samples[index].lesion_fraction, samples[index].id))
    count = min(len(order), COLUMNS * ROWS)
    shown = [order[index] for index in np.linspace(0, len(order) - 1, count).round().astype(int)]
    rows = -(-count // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, TITLE + rows * (TILE + CAPTION)), "white")
    draw, title, text = ImageDraw.Draw(sheet), ImageFont.load_default(16), ImageFont.load_default(12)
    draw.text((4, 4), f"{count:,} of {len(samples):,} images, by the size of the lesion", fill="black", font=title)
    draw.line((5, 34, 25, 34), fill=OUTLINE, width=3)
    key = "outline of the mask · below each image its id, its split and the lesion's share of the image"
    draw.text((32, 27), key, fill="black", font=text)
    for place, index in enumerate(shown):
        left, top = place % COLUMNS * TILE, TITLE + place // COLUMNS * (TILE + CAPTION)
        sheet.paste(outlined_tile(images[index], masks[index], TILE - 4), (left + 2, top))
        sample = samples[index]
        draw.text((left + 4, top + TILE - 3), _fitting(sample.id, text), fill="black", font=text)
        words = f"{sample.split}, {100 * sample.lesion_fraction:.1f} %"
        draw.text((left + 4, top + TILE + 11), _fitting(words, text), fill="black", font=text)
    return sheet


def _fitting(words: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """One line as wide as a tile; long ones lose their middle, as ids differ at their ends."""
    words, letters = " ".join(words.split()), len(words)
    short = words
    while font.getlength(short) > TILE - 8 and letters > 2:
        letters -= 1
        short = f"{words[: letters // 2]}…{words[-(letters - letters // 2) :]}"
    return short


def outlined_tile(image: np.ndarray, mask: np.ndarray, size: int) -> Image.Image:
    """A square tile of the image with the outline of its mask, one pixel wide."""
    tile = np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    lesion = np.asarray(Image.fromarray(mask * np.uint8(255)).resize((size, size), Image.Resampling.BOX)) >= 128
    framed = np.pad(lesion, 1)
    inside = framed[:-2, 1:-1] & framed[2:, 1:-1] & framed[1:-1, :-2] & framed[1:-1, 2:]
    tile[lesion & ~inside] = OUTLINE
    return Image.fromarray(tile)


def save_png(picture: Image.Image, path: str | Path) -> None:
    """Save with the largest palette that keeps the file below `LIMIT`, else the smallest."""
    with atomic(path) as temporary:
        for colours in COLOURS:
            palette = picture.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            palette.save(temporary, format="PNG", optimize=True)
            if temporary.stat().st_size <= LIMIT:
                break
