"""The synthetic source: reproducible to the byte, exact masks, and neither trivial nor hopeless to segment."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lesionseg.common.errors import InputError
from lesionseg.download import synthetic
from lesionseg.download.dermoscopy import draw_photograph
from lesionseg.download.subset import choose_subset
from lesionseg.download.synthetic import fetch


@pytest.fixture(scope="module")
def drawn() -> list[tuple[np.ndarray, np.ndarray]]:
    """100 images of the default series: image (H, W, 3) uint8, mask (H, W) bool."""
    return [(image, mask > 0) for image, mask in (draw_photograph(0, index) for index in range(100))]


def fetched(target: Path, **changes) -> list:
    target.mkdir()
    return fetch(target, **({"count": 4, "limit": None, "seed": 0, "workers": 1} | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Reproducible


def test_an_image_depends_on_its_seed_and_number_alone():
    draw_photograph(5, 0)  # leaves no state behind
    image, mask = draw_photograph(5, 3)
    again, mask_again = draw_photograph(5, 3)
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, mask_again)
    for other, _ in (draw_photograph(5, 4), draw_photograph(6, 3)):
        assert other.shape != image.shape or (other != image).any()


def test_one_thread_or_many_draw_the_same():
    threads = cv2.getNumThreads()
    try:
        results = []
        for count in (1, 4):
            cv2.setNumThreads(count)
            results.append([draw_photograph(0, index) for index in range(3)])
    finally:
        cv2.setNumThreads(threads)
    for (image, mask), (other, other_mask) in zip(*results, strict=True):
        np.testing.assert_array_equal(image, other)
        np.testing.assert_array_equal(mask, other_mask)


def test_workers_and_repetition_change_no_byte(tmp_path):
    """So many are drawn by several processes."""
    count = synthetic.WORTH_PROCESSES
    pairs = [fetched(tmp_path / str(workers), count=count, workers=workers) for workers in (1, 2)]
    assert pairs[0] == pairs[1]
    assert len(contents(tmp_path / "1")) == 2 * count
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_larger_count_contains_the_smaller(tmp_path):
    few, more = fetched(tmp_path / "few", count=3), fetched(tmp_path / "more", count=5)
    assert more[:3] == few
    assert contents(tmp_path / "few").items() < contents(tmp_path / "more").items()


def test_another_seed_draws_other_images(tmp_path):
    ours, theirs = fetched(tmp_path / "ours", seed=0), fetched(tmp_path / "theirs", seed=1)
    assert [pair.id for pair in ours] == [pair.id for pair in theirs]
    assert {pair.image_sha256 for pair in ours}.isdisjoint(pair.image_sha256 for pair in theirs)


def test_a_limit_keeps_the_chosen_images_as_they_were(tmp_path):
    every, some = fetched(tmp_path / "every", count=6), fetched(tmp_path / "some", count=6, limit=2)
    chosen = choose_subset([pair.id for pair in every], 2, seed=0)
    assert some == [pair for pair in every if pair.id in chosen]
    assert contents(tmp_path / "some").items() < contents(tmp_path / "every").items()


def test_a_limit_above_the_count_is_an_error_and_draws_nothing(tmp_path):
    with pytest.raises(InputError, match=r"download\.limit: found 9, but download\.synthetic_images is 4"):
        fetched(tmp_path / "raw", limit=9)
    assert contents(tmp_path / "raw") == {}


def test_files_are_as_described(tmp_path):
    for pair in fetched(tmp_path / "raw"):
        assert (pair.image, pair.mask) == (f"images/{pair.id}.jpg", f"masks/{pair.id}_segmentation.png")
        assert (pair.subset, pair.source) == ("training", "synthetic")
        for name, digest, format in ((pair.image, pair.image_sha256, "JPEG"), (pair.mask, pair.mask_sha256, "PNG")):
            assert hashlib.sha256((tmp_path / "raw" / name).read_bytes()).hexdigest() == digest
            with Image.open(tmp_path / "raw" / name) as file:
                assert (file.format, file.size) == (format, (pair.width, pair.height))
        with Image.open(tmp_path / "raw" / pair.mask) as file:
            assert file.mode == "L"
            assert set(np.unique(np.asarray(file))) == {0, 255}


# Like ISIC's


def test_sizes_and_areas_spread_as_real_ones_do(drawn):
    areas = np.array([mask.mean() for _, mask in drawn])
    assert 0.1 < np.median(areas) < 0.25
    assert 0.003 < areas.min() < 0.03
    assert 0.5 < areas.max() < 0.9
    shapes = {mask.shape for _, mask in drawn}
    assert len(shapes) > 80
    assert all(250 <= side <= 900 for shape in shapes for side in shape)
    assert any(height > width for height, width in shapes)


def test_a_mask_is_one_piece_without_holes(drawn):
    """But where the dermoscope's frame cuts it."""
    whole = 0
    for _, mask in drawn:
        parts = cv2.connectedComponents(mask.astype(np.uint8))[0] - 1
        outside = (
            cv2.connectedComponents(np.pad(~mask, 1, constant_values=True).astype(np.uint8), connectivity=4)[0] - 1
        )
        whole += parts == outside == 1
    assert whole >= 0.97 * len(drawn)


def test_the_mask_lies_on_the_lesion(drawn):
    """Across its border the skin changes, more than across a border of the same shape anywhere else."""
    here, turned = [], []
    for image, mask in drawn:
        here.append(_step_across(image, mask))
        turned.append(_step_across(image, mask[::-1, ::-1]))
    assert np.median(here) > 3 * np.median(turned)
    assert np.mean(np.array(here) > 4) > 0.85  # of 255; the others are hard to see


def _step_across(image: np.ndarray, mask: np.ndarray) -> float:
    """Mean absolute difference of colour between a band inside and one outside of a mask's outline."""
    kernel = np.ones((17, 17), np.uint8)
    inner = mask & ~cv2.erode(mask.astype(np.uint8), kernel, borderValue=1).astype(bool)
    outer = ~mask & cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)
    return float(np.abs(image[inner].mean(0) - image[outer].mean(0)).mean())


# Neither trivial ...


def scores(drawn: list, predict: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Dice of `predict`(image), (H, W) bool: mean over images, and pooled over pixels."""
    counts = []
    for image, mask in drawn:
        predicted = predict(image)
        counts.append(((predicted & mask).sum(), predicted.sum() + mask.sum()))
    overlap, total = np.array(counts, float).T
    return float((2 * overlap / total).mean()), float(2 * overlap.sum() / total.sum())


def otsu(image: np.ndarray) -> np.ndarray:
    """Dark against light, at Otsu's threshold: the classical segmentation of skin lesions."""
    grey = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 2)
    return cv2.threshold(grey, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1].astype(bool)


def everything(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], bool)


def centre(image: np.ndarray) -> np.ndarray:
    """The ellipse in the middle: all that can be known without looking."""
    height, width = image.shape[:2]
    y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return x**2 + y**2 < 0.36


@pytest.mark.parametrize(("predict", "below"), [(otsu, 0.75), (everything, 0.5), (centre, 0.65)])
def test_a_method_that_does_not_learn_scores_badly(drawn, predict, below):
    assert max(scores(drawn, predict)) < below


# ... nor hopeless


def test_colour_tells_much_of_a_lesion_to_who_knows_where_to_look(drawn):
    """Given the colours inside and outside, a linear rule per image finds most lesions: they can be seen.

    A ceiling for single pixels, without shape or texture; a network should come near it.
    """
    dice = []
    for image, mask in drawn[::2]:
        small, truth = cv2.GaussianBlur(image, (0, 0), 3)[::4, ::4], mask[::4, ::4]
        pixels = np.dstack([small, np.ones(truth.shape)]).reshape(-1, 4)
        weights, *_ = np.linalg.lstsq(pixels, truth.reshape(-1).astype(float), rcond=None)
        values = (pixels @ weights).reshape(truth.shape)
        dice.append(max(_dice(values > level, truth) for level in np.linspace(0.1, 0.9, 9)))
    assert np.mean(dice) > 0.8


def _dice(predicted: np.ndarray, mask: np.ndarray) -> float:
    return 2 * (predicted & mask).sum() / (predicted.sum() + mask.sum())
