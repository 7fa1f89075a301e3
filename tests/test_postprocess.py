"""Cleaning against scipy, the way back into probabilities, refinement, and resizing to native size."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from lesionseg.inference import native, refine
from lesionseg.inference.postprocess import Cleaning, filled, imprint, largest_component, open_disc
from lesionseg.inference.refine import crf


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

    assert wrong(crf(blurred, image)) < 0.5 * wrong(blurred)


def slow_crf(probabilities: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Mean field written out from the energies of both labels, one pixel and one neighbour at a time."""
    side = max(image.shape[:2])
    step = max(1, round(refine.STEP * side))
    lesion = np.clip(probabilities / 255, 1 / 1024, 1 - 1 / 1024)
    unary = -np.log(np.stack([1 - lesion, lesion]))  # energy of each label
    colour = image / 255
    offsets = [k * step for k in range(-refine.WINDOW, refine.WINDOW + 1)]
    marginals = np.stack([1 - probabilities / 255, probabilities / 255])
    for _ in range(refine.ITERATIONS):
        energy = unary.copy()
        for y, x in np.ndindex(probabilities.shape):
            strength, disagree = 0.0, np.zeros(2)
            for dy, dx in [(dy, dx) for dy in offsets for dx in offsets if (dy, dx) != (0, 0)]:
                v, u = y + dy, x + dx
                if 0 <= v < image.shape[0] and 0 <= u < image.shape[1]:
                    far = (dy**2 + dx**2) / (refine.NEAR * side) ** 2
                    unlike = ((colour[y, x] - colour[v, u]) ** 2).sum() / refine.ALIKE**2
                    kernel = np.exp(-(far + unlike) / 2)
                    strength += kernel
                    disagree += kernel * marginals[::-1, v, u]  # Potts: a neighbour of the other label costs
            energy[:, y, x] += refine.WEIGHT * disagree / max(strength, 1e-6)
        weights = np.exp(-energy)
        marginals = weights / weights.sum(0)
    return 255 * marginals[1]


def test_refinement_is_mean_field_written_out():
    random = np.random.default_rng(0)
    image = cv2.GaussianBlur(random.integers(0, 256, (24, 20, 3), np.uint8), (0, 0), 3)
    probabilities = random.integers(0, 256, (24, 20), np.uint8)
    found = crf(probabilities, image)
    assert np.abs(found - slow_crf(probabilities, image)).max() < 0.51
    assert np.abs(found - probabilities.astype(float)).max() > 50, "it does something"


def test_refinement_treats_lesion_and_skin_alike():
    image, _ = edge_image()
    probabilities = np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)
    assert np.abs(crf(255 - probabilities, image) - (255.0 - crf(probabilities, image))).max() <= 1


@pytest.mark.parametrize("value", [0, 255])
def test_refinement_leaves_a_certain_network_alone(value):
    image, _ = edge_image()
    constant = np.full((128, 128), value, np.uint8)
    np.testing.assert_array_equal(crf(constant, image), constant)
