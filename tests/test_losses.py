"""Losses against values worked out by hand and against the formulas written as loops over pixels."""

import math
from functools import partial

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

from conftest import REPOSITORY
from lesionseg.train import losses

# The formulas of the docstrings, one pixel at a time in double precision. ---------------------------------------


def sigmoid(logit):
    return 1 / (1 + math.exp(-logit))


def bce_twin(logits, targets):
    terms = [-math.log(sigmoid(z if t else -z)) for z, t in zip(logits, targets, strict=True)]
    return sum(terms) / len(terms)


def focal_twin(logits, targets, gamma):
    total = 0.0
    for z, t in zip(logits, targets, strict=True):
        p_true = sigmoid(z) if t else 1 - sigmoid(z)
        total -= (1 - p_true) ** gamma * math.log(p_true)
    return total / len(logits)


def tversky_twin(logits, targets, beta):
    tp = fp = fn = 0.0
    for z, t in zip(logits, targets, strict=True):
        tp += sigmoid(z) * t
        fp += sigmoid(z) * (1 - t)
        fn += (1 - sigmoid(z)) * t
    smooth = losses.SMOOTH / 2
    return 1 - (tp + smooth) / (tp + smooth + (1 - beta) * fp + beta * fn)


TWINS = {  # of every loss, with its options
    "bce_dice": lambda z, t, dice_weight: bce_twin(z, t) + dice_weight * tversky_twin(z, t, 0.5),
    "focal": lambda z, t, focal_gamma: focal_twin(z, t, focal_gamma),
    "tversky": lambda z, t, tversky_beta: tversky_twin(z, t, tversky_beta),
    "focal_tversky": lambda z, t, tversky_beta, focal_tversky_gamma: (
        tversky_twin(z, t, tversky_beta) ** (1 / focal_tversky_gamma)
    ),
}
CHANGED = [  # options at other than their usual values
    ("bce_dice", {"dice_weight": 0.3}),
    ("focal", {"focal_gamma": 0.5}),
    ("tversky", {"tversky_beta": 0.2}),
    ("focal_tversky", {"tversky_beta": 0.6, "focal_tversky_gamma": 2.0}),
]
USUAL = {
    name: value
    for name, value in yaml.safe_load((REPOSITORY / "params.yaml").read_text(encoding="utf-8"))["train"].items()
    if name in losses.Options.model_fields and name != "loss"
}
CASES = {name: (name, {}) for name in losses.LOSSES} | {f"{name} {values}": (name, values) for name, values in CHANGED}


def build(case):
    name, changed = CASES[case]
    return losses.build_loss(name, **USUAL | changed)


def twin(case):
    """The formula of a case, of logits and targets as lists."""
    name, changed = CASES[case]
    values = {option: value for option, value in (USUAL | changed).items() if option in losses.options(name)}
    return partial(TWINS[name], **values)


def random_batch(images=3, side=7):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(images, 1, side, side, generator=generator)
    targets = (torch.rand(images, 1, side, side, generator=generator) > 0.6).to(torch.uint8)
    return logits, targets


@pytest.mark.parametrize("case", CASES)
def test_loss_is_its_formula(case):
    logits, targets = random_batch()
    expected = [twin(case)(z.flatten().tolist(), t.flatten().tolist()) for z, t in zip(logits, targets, strict=True)]
    result = build(case)(logits, targets)
    assert result.dtype == torch.float32
    assert result.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_the_slope_of_the_formula(case):
    logits, targets = random_batch(images=1, side=3)
    logits.requires_grad_()
    build(case)(logits, targets).sum().backward()
    pixels, truth = logits.detach().double().flatten().tolist(), targets.flatten().tolist()
    slopes = []
    for index in range(len(pixels)):
        above, below = list(pixels), list(pixels)
        above[index] += 1e-5
        below[index] -= 1e-5
        slopes.append((twin(case)(above, truth) - twin(case)(below, truth)) / 2e-5)
    np.testing.assert_allclose(logits.grad.flatten().numpy(), slopes, rtol=1e-3, atol=1e-6)


def test_bce_dice_by_hand():
    """Four pixels of probability 1/2, one of them lesion: BCE ln 2; Dice 1 - (2·½ + 1) / (2 + 1 + 1)."""
    targets = torch.tensor([[[[1, 0], [0, 0]]]])
    assert losses.bce_dice(torch.zeros(1, 1, 2, 2), targets, dice_weight=1.0).item() == pytest.approx(math.log(2) + 0.5)


def test_identities_between_the_losses():
    logits, targets = random_batch()
    torch.testing.assert_close(losses.focal(logits, targets, focal_gamma=0.0), losses.bce(logits, targets))
    torch.testing.assert_close(losses.tversky(logits, targets, tversky_beta=0.5), losses.dice(logits, targets))
    torch.testing.assert_close(
        losses.focal_tversky(logits, targets, tversky_beta=0.7, focal_tversky_gamma=1.0),
        losses.tversky(logits, targets, tversky_beta=0.7),
    )


def test_tversky_beta_above_a_half_punishes_misses_more():
    targets = torch.zeros(1, 1, 8, 8)
    targets[..., :4, :] = 1
    missed, invented = torch.full_like(targets, -9.0), torch.full_like(targets, -9.0)
    missed[..., :2, :] = 9  # half of the lesion
    invented[..., :6, :] = 9  # the lesion and as many pixels again as were missed
    assert losses.tversky(missed, targets, tversky_beta=0.7) > losses.tversky(missed, targets, tversky_beta=0.3)
    assert losses.tversky(invented, targets, tversky_beta=0.7) < losses.tversky(invented, targets, tversky_beta=0.3)


@pytest.mark.parametrize("case", CASES)
def test_an_image_has_the_same_loss_in_any_batch(case):
    logits, targets = random_batch(images=5)
    loss = build(case)
    alone = torch.cat([loss(z[None], t[None]) for z, t in zip(logits, targets, strict=True)])
    torch.testing.assert_close(loss(logits, targets), alone, rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.bfloat16])
def test_targets_of_any_type(case, dtype):
    logits, targets = random_batch()
    assert torch.equal(build(case)(logits, targets.to(dtype)), build(case)(logits, targets))


@pytest.mark.parametrize("case", CASES)
def test_half_precision_logits_are_summed_in_float32(case):
    logits, targets = random_batch(images=2, side=256)
    half = logits.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        result = build(case)(half, targets)
    assert result.dtype == torch.float32
    assert torch.equal(result, build(case)(half.float(), targets))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("truth", [0.0, 1.0], ids=["empty", "full"])
@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_finite_for_empty_and_full_masks_and_extreme_logits(case, truth, logit):
    logits = torch.full((2, 1, 64, 64), logit, requires_grad=True)
    result = build(case)(logits, torch.full((2, 1, 64, 64), truth))
    result.sum().backward()
    assert result.isfinite().all()
    assert logits.grad.isfinite().all()
    right = (logit > 0) == (truth > 0) and logit != 0
    assert (result < 2e-3).all() if right else (result > 0.1).all()


@pytest.mark.parametrize("name", losses.LOSSES)
def test_descending_the_loss_finds_the_mask(name):
    _, targets = random_batch()
    logits = torch.zeros(targets.shape, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.5)
    for _ in range(50):
        optimiser.zero_grad()
        losses.build_loss(name, **USUAL)(logits, targets).sum().backward()
        optimiser.step()
    assert torch.equal(logits > 0, targets.bool())


def test_deep_supervision_by_hand():
    """Full resolution weighs 4/7, half 2/7, a quarter 1/7; each sees the targets at its size."""
    targets = torch.zeros(1, 1, 8, 8)
    targets[..., :4, :] = 1  # halves of blocks at no level: every level's truth is exact
    outputs = [torch.randn(1, 1, size, size) for size in (8, 4, 2)]
    truths = [targets, targets[..., ::2, ::2], targets[..., ::4, ::4]]
    expected = sum(
        weight / 7 * losses.bce_dice(output, truth, dice_weight=1.0)
        for weight, output, truth in zip((4, 2, 1), outputs, truths, strict=True)
    )
    torch.testing.assert_close(
        losses.build_loss("bce_dice", dice_weight=1.0)(outputs, targets.to(torch.uint8)), expected
    )


def test_deep_supervision_sees_only_zeros_and_ones():
    seen = []

    def record(logits, targets):
        seen.append(targets)
        return losses.bce(logits, targets)

    targets = (torch.rand(2, 1, 16, 16) > 0.5).to(torch.uint8)
    losses.deep_supervision(record)([torch.zeros(2, 1, size, size) for size in (16, 8, 4)], targets)
    assert [tuple(each.shape[-2:]) for each in seen] == [(16, 16), (8, 8), (4, 4)]
    assert all(((each == 0) | (each == 1)).all() for each in seen)


def test_one_output_is_the_plain_loss():
    logits, targets = random_batch()
    loss = losses.build_loss("focal", focal_gamma=2.0)
    torch.testing.assert_close(loss([logits], targets), loss(logits, targets))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\).*\(2, 8, 8\)"):
        losses.bce(torch.zeros(2, 1, 8, 8), torch.zeros(2, 8, 8))


def test_the_schema_has_every_loss_and_its_options():
    """What a loss's function takes by keyword is a parameter, with its range."""
    chosen = losses.Options(loss="focal", **USUAL)
    assert losses.build_loss(**chosen.model_dump())(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)) > 0
    assert set(losses.Options.model_fields) == {"loss", *USUAL}, "options that params.yaml lacks"
    wrong = [("loss", "dice"), ("dice_weight", -1.0), ("focal_gamma", -1.0), ("tversky_beta", 1.1)]
    for name, value in [*wrong, ("focal_tversky_gamma", 0.9)]:
        with pytest.raises(ValidationError, match=name):
            losses.Options(**{"loss": "focal"} | USUAL | {name: value})


def test_a_loss_needs_its_own_options_and_leaves_the_others():
    with pytest.raises(KeyError, match="tversky_beta"):
        losses.build_loss("tversky", dice_weight=1.0)
    logits, targets = random_batch()
    own, all_of_them = losses.build_loss("tversky", tversky_beta=0.7), losses.build_loss("tversky", **USUAL)
    assert torch.equal(own(logits, targets), all_of_them(logits, targets))
