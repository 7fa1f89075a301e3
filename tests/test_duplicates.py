"""Duplicates are found through re-encoding, resizing, brightness and a shifted frame; different lesions are not."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from lesionseg.images.decoding import read_rgb
from lesionseg.preprocess.duplicates import (
    BITS,
    close_pairs,
    groups,
    hashes,
    identical,
    near_duplicates,
    structure_correlation,
    thumbnail,
)

REAL = Path(os.environ.get("LESIONSEG_REAL_DATA", Path(__file__).parents[2] / "shared/data"))
DISTANCE = 64


def skin(seed: int, size: int = 256) -> Image.Image:
    """A dark blob on bright skin with structure at every scale: alike at a glance, different in detail."""
    random = np.random.default_rng(seed)
    texture = sum(gaussian_filter(random.normal(0, 1, (size, size)), s) * s * 12 for s in (2, 4, 8, 16))
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    radius = random.uniform(0.3, 0.6)
    blob = 1 / (1 + np.exp((np.hypot(x, y) - radius) * 12))
    grey = np.clip(200 - 110 * blob + texture, 0, 255)
    return Image.fromarray(np.stack([grey, grey * 0.8, grey * 0.7], axis=-1).astype(np.uint8))


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "jpeg", quality=40)
    return Image.open(buffer).convert("RGB")


CHANGES = {
    "compressed": jpeg,
    "half the size": lambda image: image.resize((128, 128)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
    "other colours": lambda image: Image.merge("RGB", image.split()[::-1]),
    "cropped by 2 %": lambda image: image.crop((2, 2, 254, 254)).resize((256, 256)),
}


def prints(images: list[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(np.asarray(image)) for image in images])


@pytest.mark.parametrize("change", CHANGES)
def test_the_same_picture_is_found_among_others(change):
    images = [skin(seed) for seed in range(12)]
    matches = near_duplicates(prints([*images, CHANGES[change](images[5])]), DISTANCE)
    assert [(match.first, match.second) for match in matches] == [(5, 12)]


def test_a_frame_shifted_by_one_percent_is_found():
    large = skin(5, 320)
    first, second = large.crop((20, 20, 276, 276)), large.crop((23, 18, 279, 274))
    matches = near_duplicates(prints([skin(1), first, skin(2), second]), DISTANCE)
    assert [(match.first, match.second) for match in matches] == [(1, 3)]


def test_a_distance_of_0_finds_only_equal_hashes():
    images = prints([skin(1), skin(1), CHANGES["cropped by 2 %"](skin(1))])
    assert [(match.first, match.second) for match in near_duplicates(images, 0)] == [(0, 1)]


def test_different_lesions_are_not_taken_for_each_other():
    assert near_duplicates(prints([skin(seed) for seed in range(40)]), DISTANCE) == []


def test_pictures_without_structure_are_not_duplicates_of_each_other():
    flat = [Image.new("RGB", (64, 64), colour) for colour in ("black", "white", "black")]
    assert near_duplicates(prints(flat), DISTANCE) == []


@pytest.mark.parametrize("distance", [0, 20, 64, 96])
def test_the_blocked_search_finds_what_comparing_every_pair_finds(distance, monkeypatch):
    monkeypatch.setattr("lesionseg.preprocess.duplicates.BLOCK", 7)
    random = np.random.default_rng(0)
    bits = random.random((40, BITS)) < 0.5
    for row in range(20):  # neighbours at every distance
        flips = random.permutation(BITS)[: row * 6]
        bits[row + 20] = bits[row]
        bits[row + 20, flips] ^= True
    brute = [
        (i, j, int((bits[i] ^ bits[j]).sum()))
        for i in range(40)
        for j in range(i + 1, 40)
        if (bits[i] ^ bits[j]).sum() <= distance
    ]
    assert len(brute) >= distance // 6
    assert [tuple(map(int, pair)) for pair in zip(*close_pairs(bits, distance), strict=True)] == brute


def test_hashes_do_not_depend_on_the_block(monkeypatch):
    thumbnails = prints([skin(seed) for seed in range(5)])
    whole = hashes(thumbnails)
    monkeypatch.setattr("lesionseg.preprocess.duplicates.BLOCK", 2)
    assert whole.shape == (5, BITS)
    np.testing.assert_array_equal(hashes(thumbnails), whole)


def test_structure_correlation_is_1_with_itself_symmetric_and_blind_to_small_shifts():
    images = prints([skin(1), skin(2)])
    assert structure_correlation(images, images) == pytest.approx([1, 1], abs=1e-4)
    left, right = images[:1], images[1:]
    assert structure_correlation(left, right) == pytest.approx(structure_correlation(right, left), abs=1e-5)
    shifted = np.roll(left, (2, -1), axis=(1, 2))
    assert structure_correlation(left, shifted)[0] > 0.85
    assert structure_correlation(left, np.roll(left, 8, axis=2))[0] < 0.5


def test_identical_files_are_linked_to_the_first():
    assert identical(["a", "b", "a", "c", "b", "a"]) == [(0, 2), (1, 4), (0, 5)]


def test_groups_are_connected_components_named_after_their_smallest_index():
    links = [(4, 1), (4, 6), (2, 3)]
    np.testing.assert_array_equal(groups(7, links), [0, 1, 2, 2, 1, 5, 1])
    np.testing.assert_array_equal(groups(3, []), [0, 1, 2])


def test_no_images_are_no_matches():
    assert near_duplicates(np.empty((0, 32, 32), np.uint8), DISTANCE) == []


KNOWN = {
    ("ISIC_0000519", "ISIC_0011295"),
    ("ISIC_0012887", "ISIC_0012989"),
    # Found by this search and confirmed by eye: the same lesion photographed or processed twice.
    ("ISIC_0012222", "ISIC_0016003"),
    ("ISIC_0000179", "ISIC_0014765"),
    ("ISIC_0000209", "ISIC_0015016"),
}


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the real images are not here")
def test_the_known_near_duplicates_of_isic_2018_and_nothing_else():
    paths = sorted((REAL / "isic2018-crop512/images").glob("*.jpg"))
    thumbnails = np.stack([thumbnail(read_rgb(path, 256)[0]) for path in paths])
    matches = near_duplicates(thumbnails, DISTANCE)
    assert {(paths[match.first].stem, paths[match.second].stem) for match in matches} == KNOWN
