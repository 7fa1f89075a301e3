"""Probabilities at the original's size: each axis shrinks by area and grows linearly."""

import cv2
import numpy as np
import pytest

from lesionseg.inference.native import resize

RANDOM = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


@pytest.mark.parametrize(
    ("shape", "method"),
    [((100, 150), cv2.INTER_LINEAR_EXACT), ((64, 90), cv2.INTER_LINEAR_EXACT), ((64, 64), cv2.INTER_LINEAR_EXACT),
     ((30, 20), cv2.INTER_AREA), ((64, 20), cv2.INTER_AREA)],
)  # fmt: skip
def test_one_filter_where_both_axes_agree(shape, method):
    np.testing.assert_array_equal(resize(RANDOM, shape), cv2.resize(RANDOM, shape[::-1], interpolation=method))


@pytest.mark.parametrize("turned", [False, True])
def test_one_axis_may_shrink_while_the_other_grows(turned):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::4] = 200  # a quarter of each cell: what a filter that skips pixels makes 0 or 200
    found = resize(stripes.T, (16, 128)) if turned else resize(stripes, (128, 16))
    np.testing.assert_array_equal(found, 50)
