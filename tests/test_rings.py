"""The outline of a mask is the mask: polygons with holes along the edges of pixels, and back."""

import cv2
import numpy as np
import pytest

from lesionseg.predict.rings import mask_from_rings, polygons


def area(ring: np.ndarray) -> float:
    """Signed, by the shoelace formula: positive clockwise, as y points down."""
    x, y = ring.T
    return (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def masks():
    random = np.random.default_rng(0)
    for shape in [(1, 1), (1, 7), (7, 1), (5, 4), (33, 47)]:
        for share in (0, 0.2, 0.5, 0.8, 1):
            yield (random.random(shape) < share).astype(np.uint8)
    rough = cv2.GaussianBlur(random.random((120, 160), np.float32), (0, 0), 5)
    yield (rough > 0.5).astype(np.uint8)


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: f"{mask.shape}-{mask.mean():.2f}")
def test_mask_to_outline_to_mask_is_the_same_to_the_pixel(mask):
    found = polygons(mask)
    rings = [ring for polygon in found for ring in (polygon.outer, *polygon.holes)]
    np.testing.assert_array_equal(mask_from_rings(rings, mask.shape), mask)
    assert len(found) == cv2.connectedComponents(mask, connectivity=4)[0] - 1
    assert sum(area(ring) for ring in rings) == mask.sum()
    components = np.zeros(mask.shape, int)
    for polygon in found:
        assert area(polygon.outer) > 0
        assert all(area(hole) < 0 for hole in polygon.holes)
        one = mask_from_rings([polygon.outer, *polygon.holes], mask.shape)
        assert cv2.connectedComponents(one, connectivity=4)[0] == 2, "a polygon is one component with its own holes"
        components += one
    np.testing.assert_array_equal(components, mask)


@pytest.mark.parametrize("mask", masks(), ids=lambda mask: f"{mask.shape}-{mask.mean():.2f}")
def test_rings_have_no_needless_vertex(mask):
    for polygon in polygons(mask):
        for ring in (polygon.outer, *polygon.holes):
            before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
            assert ((before == 0).sum(1) == 1).all(), "edges run along rows and columns of corners"
            assert ((before == 0) != (after == 0)).all(), "and turn at every vertex"


def test_a_pixel_is_the_square_between_its_corners():
    mask = np.zeros((4, 5), np.uint8)
    mask[2, 3] = 1
    (polygon,) = polygons(mask)
    assert polygon.outer.tolist() == [[3, 2], [4, 2], [4, 3], [3, 3]]
    assert not polygon.holes


def test_diagonal_pixels_are_two_polygons_and_a_hole_between_four_is_one():
    assert len(polygons(np.eye(2, dtype=np.uint8))) == 2
    ring = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], np.uint8)
    (polygon,) = polygons(ring)
    assert [abs(area(hole)) for hole in polygon.holes] == [2], "holes are 8-connected, as lesion is 4-connected"
