"""Cleaning against scipy, the way back into probabilities, refinement, and resizing to native size."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from lesionseg.inference import native
from lesionseg.inference.postprocess import Cleaning, filled, imprint, largest_component, open_disc
from lesionseg.inference.refine import guided_filter


def noise(seed: int, blur: float = 2.0) -> np.ndarray:
    """8-bit probabilities (64, 48) with blobs, islands and holes; about half above 128."""
    field = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((64, 48)), (0, 0), blur)
    return np.clip(128 + 100 * field / field.std(), 0, 255).astype(np.uint8)


@pytest.fixture(params=range(5))
def probabilities(request) -> np.ndarray:
    return noise(request.param)


@pytest.fixture
def mask(probabilities) -> np.ndarray:
    return (probabilities >= 128).astype(np.uint8)


def test_the_largest_component_is_that_of_scipy(mask):
    labels, count = ndimage.label(mask)
    assert count > 1, "otherwise this tests nothing"
    sizes = ndimage.sum_labels(mask, labels, range(1, count + 1))
    np.testing.assert_array_equal(largest_component(mask), labels == 1 + np.argmax(sizes))


def test_filled_holes_are_those_of_scipy(mask):
    ring = mask.copy()
    ring[20:31, 20:31] = 1
    ring[23:27, 23:28] = 0
    expected = ndimage.binary_fill_holes(ring, structure=np.ones((3, 3)))
    assert expected.sum() > ring.sum()
    np.testing.assert_array_equal(filled(ring), expected)


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_opening_is_that_of_scipy_away_from_the_edge(mask, radius):
    offsets = np.arange(-radius, radius + 1)
    disc = np.add.outer(offsets**2, offsets**2) <= radius**2
    wide = np.pad(mask, 2 * radius, mode="edge")  # the lesion goes on beyond the edge
    inner = slice(2 * radius, -2 * radius)
    eroded = cv2.erode(mask, disc.astype(np.uint8))
    np.testing.assert_array_equal(open_disc(mask, radius), cv2.dilate(eroded, disc.astype(np.uint8)))
    centre = (slice(2 * radius, -2 * radius),) * 2
    expected = ndimage.binary_opening(wide, disc)[inner, inner]
    np.testing.assert_array_equal(open_disc(mask, radius)[centre], expected[centre])


def test_opening_does_not_eat_a_lesion_that_touches_the_edge():
    half = np.zeros((40, 40), np.uint8)
    half[:, :20] = 1
    np.testing.assert_array_equal(open_disc(half, 6), half)


@pytest.mark.parametrize("clean", [Cleaning(), Cleaning(3, True, True), Cleaning(opening=64)])
@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_stay_what_they_are(clean, value):
    constant = np.full((32, 32), value, np.uint8)
    np.testing.assert_array_equal(clean(constant), constant)


def test_cleaning_is_off_by_default_and_composes(mask):
    assert not Cleaning()
    np.testing.assert_array_equal(Cleaning()(mask), mask)
    assert Cleaning(fill_holes=True)
    everything = Cleaning(opening=1, keep_largest=True, fill_holes=True)(mask)
    np.testing.assert_array_equal(everything, filled(largest_component(open_disc(mask, 1))))
    assert ndimage.label(everything)[1] == 1


@pytest.mark.parametrize("level", [1, 100, 128, 255])
def test_imprinted_probabilities_threshold_to_the_cleaned_mask(probabilities, level):
    mask = Cleaning(1, True, True)((probabilities >= level).astype(np.uint8))
    changed = imprint(probabilities, mask, level)
    np.testing.assert_array_equal(changed >= level, mask)
    agree = (probabilities >= level) == mask
    np.testing.assert_array_equal(changed[agree], probabilities[agree])


def test_one_component_stays_one_component_at_native_size(probabilities):
    mask = largest_component((probabilities >= 128).astype(np.uint8))
    enlarged = native.mask_at(imprint(probabilities, mask, 128), (64 * 9 + 5, 48 * 11 + 3), 128)
    assert ndimage.label(enlarged, structure=np.ones((3, 3)))[1] == 1
    assert enlarged.mean() == pytest.approx(mask.mean(), rel=0.1)


def test_enlarging_is_bilinear_with_pixel_centres_aligned():
    small = noise(1)
    height, width = 300, 500
    y = np.clip((np.arange(height) + 0.5) * 64 / height - 0.5, 0, 63)
    x = np.clip((np.arange(width) + 0.5) * 48 / width - 0.5, 0, 47)
    expected = ndimage.map_coordinates(small.astype(float), np.meshgrid(y, x, indexing="ij"), order=1)
    assert np.abs(native.resize(small, (height, width)) - expected).max() < 1, "rounding, of the weights too"


def test_shrinking_averages_areas():
    small = noise(2)
    expected = small.reshape(32, 2, 24, 2).mean((1, 3))
    assert np.abs(native.resize(small, (32, 24)) - expected).max() <= 0.51


def test_the_same_size_is_left_alone():
    np.testing.assert_array_equal(native.resize(noise(3), (64, 48)), noise(3))


def edge_image() -> tuple[np.ndarray, np.ndarray]:
    """A dark disc on light skin, uint8 (128, 128, 3), and its exact mask."""
    y, x = np.mgrid[:128, :128]
    disc = (np.hypot(x - 64, y - 60) < 35).astype(np.uint8)
    image = np.where(disc[..., None], np.uint8([120, 70, 50]), np.uint8([225, 180, 160]))
    return image.astype(np.uint8), disc


def test_refinement_moves_a_blurred_outline_to_the_edge_in_the_photograph():
    image, disc = edge_image()
    blurred = np.rint(cv2.GaussianBlur(np.roll(disc, 2, 1) * 255.0, (0, 0), 4)).astype(np.uint8)

    def wrong(probabilities):
        return np.count_nonzero((probabilities >= 128) != disc)

    assert wrong(guided_filter(blurred, image)) < 0.5 * wrong(blurred)


def test_refinement_solves_the_linear_model_of_the_paper():
    """One window, written out: at the centre of a window of constant statistics q = a·I + b with a = (Σ + εU)⁻¹ cov."""
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (96, 96, 3), np.uint8)
    probabilities = random.integers(0, 256, (96, 96), np.uint8)
    from lesionseg.inference.refine import EPSILON, RADIUS

    radius = round(96 * RADIUS)
    guide, target = image / 255, probabilities / 255
    slopes, offsets = np.zeros((96, 96, 3)), np.zeros((96, 96))
    inside = range(radius, 96 - radius)
    for y in inside:
        for x in inside:
            window = (slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1))
            colours, values = guide[window].reshape(-1, 3), target[window].ravel()
            covariance = np.mean(colours * values[:, None], 0) - colours.mean(0) * values.mean()
            slopes[y, x] = np.linalg.solve(np.cov(colours.T, bias=True) + EPSILON * np.eye(3), covariance)
            offsets[y, x] = values.mean() - slopes[y, x] @ colours.mean(0)
    found = guided_filter(probabilities, image)
    for y, x in [(48, 48), (20, 70), (60, 31)]:
        window = (slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1))
        expected = slopes[window].reshape(-1, 3).mean(0) @ guide[y, x] + offsets[window].mean()
        assert found[y, x] == pytest.approx(255 * np.clip(expected, 0, 1), abs=0.6)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_refinement_leaves_constant_probabilities_alone(value):
    image, _ = edge_image()
    constant = np.full((128, 128), value, np.uint8)
    np.testing.assert_array_equal(guided_filter(constant, image), constant)
