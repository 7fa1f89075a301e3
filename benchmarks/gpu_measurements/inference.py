"""Prediction as the evaluate stage does it: in single precision, with or without test-time augmentation."""

from collections import deque

import numpy as np
import torch

from gpu_measurements.clock import median_seconds
from gpu_measurements.report import Row
from gpu_measurements.scale import Scale
from lesionseg import networks
from lesionseg.inference.prediction import predict


def speed(augmentation: str, scale: Scale, images: np.ndarray, device: torch.device) -> Row:
    """Images a second of `predict` from images uint8 (N, H, W, 3) in memory to 8-bit probabilities in memory."""
    torch.manual_seed(0)
    model = networks.build(scale.network, scale.base_width)
    rows = np.resize(np.arange(len(images)), scale.predicted_images).tolist()

    def run() -> None:
        deque(predict(model, images, rows, device, augmentation), maxlen=0)

    # a call is many batches already
    seconds = median_seconds(run, device, scale.seconds, warm_up=1, blocks=3)
    return {"images": len(rows), "images_per_second": len(rows) / seconds}
