"""Losses on logits, one value per image.

Every loss takes logits (B, 1, H, W) of any float dtype and targets (B, 1, H, W) that are 0 or 1 (bool,
uint8 or float), and returns float32 (B,): the loss of each image. An image's loss never depends on the
others in its batch, so that a batch may be taken in parts (gradient accumulation, several processes): the
mean over all images is the same. All is computed in float32, under autocast too.

Overlap losses are soft: sums of probabilities instead of counts of thresholded pixels. SMOOTH pixels are
added to numerator and denominator, so that an empty mask has a defined loss: 0 where nothing is predicted,
near 1 where much is.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lesionseg.common.errors import InputError

Loss = Callable[[Tensor, Tensor], Tensor]
NAMES = ("bce_dice", "focal", "tversky", "focal_tversky")
SMOOTH = 1.0  # pixels
PIXELS = (1, 2, 3)  # the dimensions that one image's loss is summed over


def build(
    name: str,
    *,
    dice_weight: float = 1.0,
    focal_gamma: float = 2.0,
    tversky_beta: float = 0.7,
    focal_tversky_gamma: float = 4 / 3,
) -> Callable[[Tensor | Sequence[Tensor], Tensor], Tensor]:
    """Return the loss `name`, one of NAMES, for a network with one output or with deep supervision.

    Each option belongs to one loss (focal_tversky takes both of Tversky's); the others ignore it.
    """
    if name == "bce_dice":

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return bce_dice(logits, targets, dice_weight)
    elif name == "focal":

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return focal(logits, targets, focal_gamma)
    elif name == "tversky":

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return tversky(logits, targets, tversky_beta)
    elif name == "focal_tversky":

        def loss(logits: Tensor, targets: Tensor) -> Tensor:
            return focal_tversky(logits, targets, tversky_beta, focal_tversky_gamma)
    else:
        raise InputError(f"loss: found {name!r}, expected one of {', '.join(NAMES)}")
    return deep_supervision(loss)


def bce_dice(logits: Tensor, targets: Tensor, dice_weight: float = 1.0) -> Tensor:
    """Binary cross entropy, mean over the pixels, plus `dice_weight` times the soft Dice loss: (B,)."""
    return bce(logits, targets) + dice_weight * dice(logits, targets)


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy, mean over the image's pixels: (B,)."""
    logits, targets = _float32(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(PIXELS)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft Dice loss, 1 - 2·Σpt / (Σp + Σt) (Milletari et al. 2016, arXiv 1606.04797): (B,)."""
    return tversky(logits, targets, beta=0.5)


def focal(logits: Tensor, targets: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss, mean of -(1 - p_t)^γ · log p_t over the pixels (Lin et al. 2017, arXiv 1708.02002): (B,).

    p_t is the probability given to the true class; γ = 0 is binary cross entropy. The paper's class weight
    α is left out: lesion and skin are far less unequal than its objects and background.
    """
    logits, targets = _float32(logits, targets)
    toward_truth = torch.where(targets > 0.5, logits, -logits)
    # (1 - p_t)^γ through its logarithm: exact and with a finite gradient where 1 - p_t underflows to 0
    weight = torch.exp(gamma * functional.logsigmoid(-toward_truth))
    return -(weight * functional.logsigmoid(toward_truth)).mean(PIXELS)


def tversky(logits: Tensor, targets: Tensor, beta: float = 0.7) -> Tensor:
    """Tversky loss, 1 - TP / (TP + α·FP + β·FN), α = 1 - β (Salehi et al. 2017, arXiv 1706.05721): (B,).

    `beta` in [0, 1] weights the missed lesion pixels: above 0.5 it raises recall, below it precision; 0.5 is
    the soft Dice loss.
    """
    logits, targets = _float32(logits, targets)
    probabilities = torch.sigmoid(logits)
    true_positives = (probabilities * targets).sum(PIXELS)
    false_positives = probabilities.sum(PIXELS) - true_positives
    false_negatives = targets.sum(PIXELS) - true_positives
    # doubled, so that at beta = 0.5 numerator and denominator are Dice's and SMOOTH means the same in both
    overlap = 2 * true_positives + SMOOTH
    return 1 - overlap / (overlap + 2 * (1 - beta) * false_positives + 2 * beta * false_negatives)


def focal_tversky(logits: Tensor, targets: Tensor, beta: float = 0.7, gamma: float = 4 / 3) -> Tensor:
    """Focal Tversky loss, Tversky loss to the power 1/γ (Abraham and Khan 2019, arXiv 1810.07842): (B,).

    γ > 1 raises the weight of nearly solved images' gradient against hard ones, γ = 1 is the Tversky loss.
    """
    # at 0 the power has an infinite slope; the clamp's is 0 there
    return tversky(logits, targets, beta).clamp_min(1e-6) ** (1 / gamma)


def deep_supervision(loss: Loss) -> Callable[[Tensor | Sequence[Tensor], Tensor], Tensor]:
    """Extend `loss` to networks that give logits at several resolutions, as nnU-Net (arXiv 1809.10486) does.

    A list of logits [(B, 1, H, W), (B, 1, H/2, W/2), …] is weighted 1, 1/2, 1/4, …, scaled to the sum 1, each
    against the targets at its resolution (nearest pixel, so that they stay 0 or 1). One tensor is passed on.
    """

    def supervised(logits: Tensor | Sequence[Tensor], targets: Tensor) -> Tensor:
        if isinstance(logits, Tensor):
            return loss(logits, targets)
        weights = [0.5**level for level in range(len(logits))]
        targets = targets.float()
        return sum(
            weight / sum(weights) * loss(output, _resized(targets, output.shape[-2:]))
            for weight, output in zip(weights, logits, strict=True)
        )

    return supervised


def _resized(targets: Tensor, size: Sequence[int]) -> Tensor:
    return targets if targets.shape[-2:] == size else functional.interpolate(targets, size, mode="nearest-exact")


def _float32(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32: half precision has too few digits to sum 65,536 pixels."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape")
    return logits.float(), targets.float()
