"""The look of every chart, whatever the user's own matplotlib settings are."""

from collections.abc import Iterator
from contextlib import contextmanager

from cycler import cycler
from matplotlib import style

from lesionseg.visualize import palette

_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that letters look the same everywhere
    "font.size": 9,
    "axes.titlesize": 9.5,
    "text.parse_math": False,  # so that a name with two $ in it is not read as a formula
    "axes.titlelocation": "left",
    "axes.titleweight": "normal",
    "axes.edgecolor": palette.INK,
    "axes.labelcolor": palette.INK,
    "axes.titlecolor": palette.INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=list(palette.SCORES.values())),
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "legend.frameon": True,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "legend.borderpad": 0.3,
    "legend.fontsize": 8.5,
    "legend.labelcolor": palette.INK,
    "lines.linewidth": 1.8,
    "text.color": palette.INK,
    "xtick.color": palette.INK,
    "ytick.color": palette.INK,
}


@contextmanager
def applied() -> Iterator[None]:
    """Apply matplotlib's defaults and the settings above, in a `with` block or as a decorator."""
    with style.context(["default", _SETTINGS]):
        yield
