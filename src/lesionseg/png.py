"""Charts as small PNG files that are the same bytes for the same picture."""

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lesionseg.files import atomic


def save_png(figure: Figure, path: str | Path, colours: int = 256) -> None:
    """Draw the figure and write it as a PNG of at most `colours` (2 to 256) colours.

    A palette is a third of the size of true colour, and the file carries no text chunk (matplotlib would
    add its version). The figure's own dpi decides the pixels.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(png_bytes(figure, colours))


def png_bytes(figure: Figure, colours: int = 256) -> bytes:
    """The bytes that `save_png` writes."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    # Median cut without dithering: noise would cost more bytes than it hides.
    picture = Image.fromarray(pixels).quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue()
