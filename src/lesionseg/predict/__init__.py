"""Segment your own photographs with a trained network: `lesionseg predict`, and the same from Python.

import lesionseg

model = lesionseg.load("models/lesion-segmentation")
mask = model.predict("photograph.jpg")
"""
