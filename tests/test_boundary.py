"""Boundary scores against MONAI, the reference of boundary IoU, and a brute-force twin; missed lesions cost most."""

from math import hypot

import cv2
import numpy as np
import pytest
import torch
from emc.records import boundary_band
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from lesionseg.evaluate.boundary import TOLERANCE, Boundary, compare_boundaries, outline, touches_border


def slow_outline(mask: np.ndarray) -> np.ndarray:
    """Outline pixels (x, y), one pixel and one neighbour at a time."""
    height, width = mask.shape
    found = []
    for y in range(height):
        for x in range(width):
            neighbours = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            outside = any(not (0 <= v < height and 0 <= u < width) or not mask[v, u] for v, u in neighbours)
            if mask[y, x] and outside:
                found.append((x, y))
    return np.array(found)


def slow_distances(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Every outline pixel against every other."""
    ours, theirs = slow_outline(predicted).astype(float), slow_outline(truth).astype(float)
    table = np.sqrt(((ours[:, None] - theirs) ** 2).sum(-1))
    forth, back = table.min(1), table.min(0)
    hd95 = max(np.percentile(forth, 95), np.percentile(back, 95))
    return hd95, np.concatenate([forth, back]).mean()


def blob(seed: int, shape=(40, 53)) -> np.ndarray:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal(shape), (0, 0), 3)
    return (noise > 0.02).astype(np.uint8)


@pytest.mark.parametrize("seed", range(6))
def test_distances_are_those_of_brute_force(seed):
    predicted, truth = blob(seed), blob(seed + 100)
    assert compare_boundaries(predicted, truth)[:2] == pytest.approx(slow_distances(predicted, truth), abs=1e-9)


def ellipse(x: float, y: float, a: float, b: float, shape=(383, 511)) -> np.ndarray:
    v, u = np.mgrid[: shape[0], : shape[1]]
    return (np.hypot((u - x) / a, (v - y) / b) < 1).astype(np.uint8)


PAIRS = {
    "ellipses": (ellipse(250, 200, 150, 110), ellipse(260, 190, 140, 125)),
    "far apart": (ellipse(80, 80, 60, 50), ellipse(420, 300, 60, 70)),
    "cut by the edge": (ellipse(500, 370, 150, 110), ellipse(480, 380, 170, 100)),
    "one in the other": (ellipse(250, 200, 20, 20), ellipse(250, 200, 190, 180)),
    "covers everything": (np.ones((383, 511), np.uint8), ellipse(250, 200, 190, 180)),
    "blobs": (blob(1, (90, 140)), blob(2, (90, 140))),
    "one pixel": (np.pad(np.ones((1, 1), np.uint8), 20), np.pad(np.ones((9, 9), np.uint8), 16)),
}


@pytest.mark.filterwarnings("ignore:monai.metrics.utils:FutureWarning")  # MONAI's own use of its own option
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_distances_and_the_normalised_surface_distance_are_those_of_monai(pair):
    predicted, truth = (torch.from_numpy(mask)[None, None] for mask in pair)
    found = compare_boundaries(*pair)
    hd95 = compute_hausdorff_distance(predicted, truth, include_background=True, percentile=95)
    mean = compute_average_surface_distance(predicted, truth, include_background=True, symmetric=True)
    tolerance = [TOLERANCE * hypot(*pair[0].shape)]
    share = compute_surface_dice(predicted, truth, tolerance, include_background=True)
    assert found.hd95 == pytest.approx(hd95.item(), rel=1e-5)
    assert found.mean_surface_distance == pytest.approx(mean.item(), rel=1e-5)
    assert found.normalised_surface_distance == pytest.approx(share.item(), rel=1e-5)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_boundary_iou_is_that_of_the_reference(pair):
    ours, theirs = (boundary_band(mask.astype(bool), "surface") for mask in pair)
    assert compare_boundaries(*pair).boundary_iou == (ours & theirs).sum() / (ours | theirs).sum()


def test_two_squares_by_hand():
    truth, predicted = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[5:10, 5:10] = 1
    predicted[5:10, 8:13] = 1  # the same square, three pixels to the right
    # the 16 outline pixels of either: 4 lie on the other outline, 5 are one pixel off, 2 are two and 5 are three;
    # the tolerance is 0.28 pixels; of the bands, one pixel wide, 4 pixels are in both and 28 in one
    assert compare_boundaries(predicted, truth) == (3.0, (4 * 0 + 5 * 1 + 2 * 2 + 5 * 3) / 16, 4 / 16, 4 / 28)


def test_distance_is_symmetric_zero_for_equal_masks_and_moves_with_a_shift():
    mask = np.zeros((60, 60), np.uint8)
    mask[20:30, 20:35] = 1
    assert compare_boundaries(mask, mask) == (0.0, 0.0, 1.0, 1.0)
    shifted = np.roll(mask, 7, axis=0)
    assert compare_boundaries(mask, shifted) == compare_boundaries(shifted, mask)
    assert compare_boundaries(mask, np.roll(mask, 25, axis=0)).hd95 > compare_boundaries(mask, shifted).hd95


def test_a_lesion_missed_or_invented_costs_the_diagonal():
    empty, full = np.zeros((9, 12), np.uint8), np.ones((9, 12), np.uint8)
    assert compare_boundaries(empty, empty) == Boundary(0, 0, 1, 1)
    assert compare_boundaries(empty, full) == compare_boundaries(full, empty) == Boundary(15, 15, 0, 0)


def test_finding_nothing_is_never_better_than_a_speck_in_the_wrong_place():
    truth, speck = ellipse(500, 370, 60, 60), np.zeros((383, 511), np.uint8)
    speck[0, 0] = 1
    wrong, nothing = compare_boundaries(speck, truth), compare_boundaries(np.zeros_like(truth), truth)
    assert nothing.hd95 > wrong.hd95
    assert nothing.mean_surface_distance > wrong.mean_surface_distance


def test_the_outline_of_a_mask_that_covers_everything_is_the_edge_of_the_image():
    assert len(outline(np.ones((5, 8), np.uint8))) == 2 * 5 + 2 * 8 - 4
    assert outline(np.ones((1, 1), np.uint8)).tolist() == [[0, 0]]


@pytest.mark.parametrize(
    ("pixel", "touches"), [((0, 4), True), ((8, 4), True), ((4, 0), True), ((4, 8), True), ((4, 4), False)]
)
def test_touching_the_border(pixel, touches):
    mask = np.zeros((9, 9), np.uint8)
    mask[pixel] = 1
    assert touches_border(mask) is touches
