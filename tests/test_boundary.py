"""Boundary distances against a brute-force twin and a distance transform, and their edge cases."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from lesionseg.evaluate.boundary import distances, outline, touches_border


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
    assert distances(predicted, truth) == pytest.approx(slow_distances(predicted, truth), abs=1e-9)


def test_distances_at_native_size_are_those_of_a_distance_transform():
    y, x = np.mgrid[:767, :1022]
    truth = (np.hypot((x - 500) / 300, (y - 400) / 220) < 1).astype(np.uint8)
    predicted = (np.hypot((x - 520) / 280, (y - 380) / 250) < 1).astype(np.uint8)
    points = {name: slow_outline_fast(mask) for name, mask in (("ours", predicted), ("theirs", truth))}
    forth = distance_transform_edt(~points["theirs"])[points["ours"]]
    back = distance_transform_edt(~points["ours"])[points["theirs"]]
    found = distances(predicted, truth)
    assert found.hd95 == pytest.approx(max(np.percentile(forth, 95), np.percentile(back, 95)), abs=1e-9)
    assert found.mean_surface == pytest.approx(np.concatenate([forth, back]).mean(), abs=1e-9)


def slow_outline_fast(mask: np.ndarray) -> np.ndarray:
    """The outline as bool (H, W), by shifting the padded mask."""
    padded = np.pad(mask.astype(bool), 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask.astype(bool) & ~inside


def test_two_squares_by_hand():
    truth, predicted = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[5:10, 5:10] = 1
    predicted[5:10, 8:13] = 1  # the same square, three pixels to the right
    # the 16 outline pixels of either: 4 lie on the other outline, 5 are one pixel off, 2 are two and 5 are three
    assert distances(predicted, truth) == (3.0, (4 * 0 + 5 * 1 + 2 * 2 + 5 * 3) / 16)


def test_distance_is_symmetric_zero_for_equal_masks_and_moves_with_a_shift():
    mask = np.zeros((60, 60), np.uint8)
    mask[20:30, 20:35] = 1
    assert distances(mask, mask) == (0.0, 0.0)
    shifted = np.roll(mask, 7, axis=0)
    assert distances(mask, shifted) == distances(shifted, mask)
    assert distances(mask, np.roll(mask, 25, axis=0)).hd95 > distances(mask, shifted).hd95


def test_empty_masks():
    empty, full = np.zeros((9, 9), np.uint8), np.ones((9, 9), np.uint8)
    assert distances(empty, empty) == (0.0, 0.0)
    assert distances(empty, full) is None
    assert distances(full, empty) is None


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
