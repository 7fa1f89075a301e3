"""Losses on logits, one value per image.

Every loss takes logits (B, 1, H, W) of any float dtype and targets (B, 1, H, W) that are 0 or 1 (bool,
uint8 or float), and returns float32 (B,): the loss of each image. An image's loss never depends on the
others in its batch, so that a batch may be taken in parts (gradient accumulation, several processes): the
mean over all images is the same. All is computed in float32, under autocast too.

Overlap losses are soft: sums of probabilities instead of counts of thresholded pixels. SMOOTH pixels are
added to numerator and denominator, so that an empty mask has a defined loss: 0 where nothing is predicted,
near 1 where much is.

A loss is a function here, named in LOSSES; its keyword arguments are parameters of the same names in params.yaml.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import Annotated, Any

import torch
from pydantic import create_model
from torch import Tensor
from torch.nn import functional

from lesionseg.common.parameters import Field, Group, one_of

Loss = Callable[[Tensor | Sequence[Tensor], Tensor], Tensor]
SMOOTH = 1.0  # pixels
PIXELS = (1, 2, 3)  # the dimensions that one image's loss is summed over
Beta = Annotated[float, Field(ge=0, le=1)]


def bce_dice(logits: Tensor, targets: Tensor, *, dice_weight: Annotated[float, Field(ge=0)]) -> Tensor:
    """Binary cross entropy, mean over the pixels, plus `dice_weight` times the soft Dice loss: (B,)."""
    return bce(logits, targets) + dice_weight * dice(logits, targets)


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy, mean over the image's pixels: (B,)."""
    logits, targets = _float32(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(PIXELS)


def dice(logits: Tensor, targets: Tensor) -> Tensor:
    """Soft Dice loss, 1 - 2·Σpt / (Σp + Σt) (Milletari et al. 2016, arXiv 1606.04797): (B,)."""
    return tversky(logits, targets, tversky_beta=0.5)


def focal(logits: Tensor, targets: Tensor, *, focal_gamma: Annotated[float, Field(ge=0)]) -> Tensor:
    """Focal loss, mean of -(1 - p_t)^γ · log p_t over the pixels (Lin et al. 2017, arXiv 1708.02002): (B,).

    p_t is the probability given to the true class; γ = 0 is binary cross entropy. The paper's class weight
    α is left out: lesion and skin are far less unequal than its objects and background.
    """
    logits, targets = _float32(logits, targets)
    toward_truth = torch.where(targets > 0.5, logits, -logits)
    # (1 - p_t)^γ through its logarithm: exact and with a finite gradient where 1 - p_t underflows to 0
    weight = torch.exp(focal_gamma * functional.logsigmoid(-toward_truth))
    return -(weight * functional.logsigmoid(toward_truth)).mean(PIXELS)


def tversky(logits: Tensor, targets: Tensor, *, tversky_beta: Beta) -> Tensor:
    """Tversky loss, 1 - TP / (TP + α·FP + β·FN), α = 1 - β (Salehi et al. 2017, arXiv 1706.05721): (B,).

    β in [0, 1] weights the missed lesion pixels: above 0.5 it raises recall, below it precision; 0.5 is
    the soft Dice loss.
    """
    logits, targets = _float32(logits, targets)
    probabilities = torch.sigmoid(logits)
    true_positives = (probabilities * targets).sum(PIXELS)
    false_positives = probabilities.sum(PIXELS) - true_positives
    false_negatives = targets.sum(PIXELS) - true_positives
    # doubled, so that at β = 0.5 numerator and denominator are Dice's and SMOOTH means the same in both
    overlap = 2 * true_positives + SMOOTH
    return 1 - overlap / (overlap + 2 * (1 - tversky_beta) * false_positives + 2 * tversky_beta * false_negatives)


def focal_tversky(
    logits: Tensor, targets: Tensor, *, tversky_beta: Beta, focal_tversky_gamma: Annotated[float, Field(ge=1)]
) -> Tensor:
    """Focal Tversky loss, Tversky loss to the power 1/γ (Abraham and Khan 2019, arXiv 1810.07842): (B,).

    γ > 1 raises the weight of nearly solved images' gradient against hard ones, γ = 1 is the Tversky loss.
    """
    # at 0 the power has an infinite slope; the clamp's is 0 there
    return tversky(logits, targets, tversky_beta=tversky_beta).clamp_min(1e-6) ** (1 / focal_tversky_gamma)


_LOSSES: tuple[Callable[..., Tensor], ...] = (bce_dice, focal, tversky, focal_tversky)
LOSSES = {loss.__name__: loss for loss in _LOSSES}


def options(loss: str) -> dict[str, Any]:
    """Name and type of the options of a loss: the keyword arguments of its function."""
    return {
        parameter.name: parameter.annotation
        for parameter in inspect.signature(LOSSES[loss]).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


# The parameters `loss` and, by name, every loss's options, for the schema of params.yaml.
_FIELDS: dict[str, Any] = {option: (kind, ...) for loss in LOSSES for option, kind in options(loss).items()}
Options = create_model("Options", __base__=Group, loss=(Annotated[str, one_of(LOSSES)], ...), **_FIELDS)


def build_loss(loss: str, **values: float) -> Loss:
    """Return one of LOSSES with its options, for a network with one output or with deep supervision.

    It takes its own options from `values`, which must have them all, and ignores those of the other losses.
    """
    return deep_supervision(partial(LOSSES[loss], **{option: values[option] for option in options(loss)}))


def deep_supervision(loss: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """Extend `loss` to networks that give logits at several resolutions, as nnU-Net (arXiv 1809.10486) does.

    A list of logits [(B, 1, H, W), (B, 1, H/2, W/2), …] is weighted 1, 1/2, 1/4, …, scaled to the sum 1, each
    against the targets at its resolution (nearest pixel, so that they stay 0 or 1). One tensor is passed on.
    """

    def supervised(logits: Tensor | Sequence[Tensor], targets: Tensor) -> Tensor:
        if isinstance(logits, Tensor):
            return loss(logits, targets)
        weights = [0.5**level for level in range(len(logits))]
        targets = targets.float()
        parts = (
            weight / sum(weights) * loss(output, _resized(targets, output.shape[-2:]))
            for weight, output in zip(weights, logits, strict=True)
        )
        return reduce(add, parts)

    return supervised


def _resized(targets: Tensor, size: Sequence[int]) -> Tensor:
    return targets if targets.shape[-2:] == size else functional.interpolate(targets, size, mode="nearest-exact")


def _float32(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float32: half precision has too few digits to sum 65,536 pixels."""
    if logits.shape != targets.shape:
        raise ValueError(f"logits {tuple(logits.shape)} and targets {tuple(targets.shape)} differ in shape")
    return logits.float(), targets.float()
