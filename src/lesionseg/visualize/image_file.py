"""A chart or gallery as the bytes of a file: PNG, SVG or PDF. The same one gives the same bytes: no time stamp."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy.spatial import cKDTree

from lesionseg.visualize import palette, style

FORMATS = ("png", "svg", "pdf")
_UNDATED = {  # what matplotlib would write about itself and the time
    "svg": {"Creator": None, "Date": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
}


def file_bytes(
    figure: Figure, kind: str, colours: int | None = 64, exact: Sequence[tuple[int, int, int]] = ()
) -> bytes:
    """The figure as a file of one of FORMATS; `colours` and `exact` as `png_bytes`, for PNG alone."""
    return png_bytes(figure, colours, exact) if kind == "png" else vector_bytes(figure, kind)


@style.applied()
def vector_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `svg`, with letters as shapes so that it needs no font, or as `pdf` with the font embedded."""
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "lesionseg", "svg.fonttype": "path", "pdf.fonttype": 42}):
        figure.savefig(buffer, format=kind, metadata=_UNDATED[kind])
    return buffer.getvalue()


@style.applied()
def png_bytes(figure: Figure, colours: int | None = 64, exact: Sequence[tuple[int, int, int]] = ()) -> bytes:
    """Draw the figure as a PNG of at most `colours` (up to 256) colours; the figure's own dpi decides its pixels.
    None: true colour.

    A palette takes a third of the bytes of true colour, and the file has no text chunk (matplotlib would name its
    version). The colours of `lesionseg.visualize.palette` and the RGB colours `exact` are in it exactly: a legend key
    of a few pixels would otherwise get the nearest of the other colours.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[..., :3]
    if colours is None:
        return _saved(Image.fromarray(pixels), optimize=False)
    fixed = list(dict.fromkeys([(255, 255, 255), *map(palette.hex_to_rgb, palette.ALL), *exact]))
    adapted = Image.fromarray(pixels).quantize(colours - len(fixed), Image.Quantize.MEDIANCUT).getpalette() or []
    table = np.concatenate([fixed, np.reshape(adapted, (-1, 3))]).astype(np.uint8)[:colours]
    picture = Image.fromarray(_nearest(pixels, table), "P")
    picture.putpalette(table.tobytes())
    return _saved(picture)


def _saved(picture: Image.Image, optimize: bool = True) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=optimize)
    return buffer.getvalue()


def _nearest(pixels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The index of the nearest colour of the table uint8 (K, 3) for each pixel (H, W, 3): uint8 (H, W).

    Pillow's own search is approximate: it maps near-white to white. No dithering: its noise costs many bytes.
    """
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, places = np.unique(packed, return_inverse=True)
    _, nearest = cKDTree(table).query(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1))
    return nearest.astype(np.uint8)[places].reshape(packed.shape)
