"""Segment photographs of one's own with a trained network: `python -m lesionseg.predict`, and the same from Python.

from lesionseg import predict

model = predict.load("models/segmentation/weights.safetensors")
mask = model.predict("photograph.jpg")
"""

from lesionseg.predict.model import Model, Settings, load

__all__ = ["Model", "Settings", "load"]
