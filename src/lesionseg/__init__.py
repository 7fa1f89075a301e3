"""Segment skin lesions in dermoscopic photographs: the library behind the stages.

import lesionseg

model = lesionseg.load("models/lesion-segmentation")
mask = model.predict("photograph.jpg")
"""

from importlib import import_module

# Loaded when asked for, by name: every stage imports this package, and needs neither torch nor these to do so.
_PUBLIC = {
    "load": "lesionseg.predict.model",
    "Model": "lesionseg.predict.model",
    "Settings": "lesionseg.inference.settings",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
